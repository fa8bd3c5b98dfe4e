/* [init] Is a stage file a whole shared object for this processor? The loader maps what the file's
   headers say and faults where the file ends before; it also has no words for another processor. */
#include <elf.h>
#include <stdio.h>
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
static const char *judge(FILE *file, uint64_t bytes) {
  Elf64_Ehdr head;
  if (fread(&head, sizeof head, 1, file) != 1 || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
      head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
      head.e_type != ET_DYN) {
    return "it is no shared object";
  }
  if (head.e_machine != THIS_MACHINE) {
    return head.e_machine == EM_AARCH64  ? "it is for aarch64, this machine is " THIS_NAME
           : head.e_machine == EM_X86_64 ? "it is for x86-64, this machine is " THIS_NAME
                                         : "it is for another processor than " THIS_NAME;
  }
  if (head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum == 0 ||
      head.e_phnum > LARGEST_HEADER_COUNT || head.e_phoff > INT32_MAX ||
      fseek(file, (long)head.e_phoff, SEEK_SET) != 0) {
    return "its headers are damaged";
  }
  for (uint32_t i = 0; i < head.e_phnum; i++) {
    Elf64_Phdr part;
    if (fread(&part, sizeof part, 1, file) != 1 || part.p_filesz > bytes ||
        part.p_offset > bytes - part.p_filesz || part.p_filesz > part.p_memsz) {
      return "it ends before its contents do";
    }
  }
  return NULL;
}

vlart_status_t tvm_check_file(const tvm_engine_t *engine, const char *path, uint64_t bytes,
                              vlart_diag_t *diag) {
  FILE *file = fopen(path, "rb");
  const char *wrong = file == NULL ? "it cannot be opened" : judge(file, bytes);
  if (file != NULL) {
    fclose(file);
  }
  if (wrong == NULL) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "a stage file is not what TVM compiles",
             "build the bundle again, for the processor that it is to run on");
  vlart_where(diag, "stage \"%s\"", tvm_stage_name(engine));
  vlart_why(diag, "%s", wrong);
  return VLART_STATUS_BACKEND_FAILED;
}
