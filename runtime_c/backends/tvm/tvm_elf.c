/* [init] Is a stage file a whole shared object for this processor? The loader maps what the file's
   headers say and faults where the file ends before; it also has no words for another processor. */
#include <elf.h>
#include <stdbool.h>
#include <string.h>

#include "base/diag.h"
#include "tvm_engine.h"

#define LARGEST_HEADER_COUNT 64u

#if defined(__aarch64__)
#define THIS_MACHINE EM_AARCH64
#define THIS_NAME "aarch64"
#else
#define THIS_MACHINE EM_X86_64
#define THIS_NAME "x86-64"
#endif

/* NULL, or what is wrong. */
static const char *judge(const vlart_map_t *file) {
  Elf64_Ehdr head;
  if (file->bytes < sizeof head) {
    return "it is no shared object";
  }
  memcpy(&head, file->data, sizeof head);
  if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
      head.e_ident[EI_DATA] != ELFDATA2LSB || head.e_type != ET_DYN) {
    return "it is no shared object";
  }
  if (head.e_machine != THIS_MACHINE) {
    return head.e_machine == EM_AARCH64  ? "it is for aarch64, this machine is " THIS_NAME
           : head.e_machine == EM_X86_64 ? "it is for x86-64, this machine is " THIS_NAME
                                         : "it is for another processor than " THIS_NAME;
  }
  if (head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum == 0 ||
      head.e_phnum > LARGEST_HEADER_COUNT || head.e_phoff > file->bytes ||
      head.e_phnum * sizeof(Elf64_Phdr) > file->bytes - head.e_phoff) {
    return "its headers are damaged";
  }
  for (uint32_t i = 0; i < head.e_phnum; i++) {
    Elf64_Phdr part;
    memcpy(&part, file->data + head.e_phoff + i * sizeof part, sizeof part);
    if (part.p_filesz > file->bytes || part.p_offset > file->bytes - part.p_filesz ||
        part.p_filesz > part.p_memsz) {
      return "it ends before its contents do";
    }
  }
  return NULL;
}

vlart_status_t tvm_check_file(const tvm_engine_t *engine, const char *path, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &engine->bundle->plan;
  uint32_t artefact = vlart_plan_stage(plan, engine->stage)->artefact;
  const char *wrong = vlart_bundle_is_at(engine->bundle, artefact, path)
                          ? judge(&engine->bundle->files[artefact])
                          : "another file took its place since the bundle was opened";
  if (wrong == NULL) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "a stage file is not what TVM compiles",
             "build the bundle again, for the processor that it is to run on");
  vlart_where(diag, "stage \"%s\"", tvm_stage_name(engine));
  vlart_why(diag, "%s", wrong);
  return VLART_STATUS_BACKEND_FAILED;
}
