/* The lines of plan.txt as tables; plan_text_lines.c is generated. What texts hold in braces:
   vlart/bundle/format/template.py; {span[i/n]} is part i of n equally long ones. */
#ifndef VLART_PLAN_TEXT_LINES_H
#define VLART_PLAN_TEXT_LINES_H

#include "container/record_fields.h"

/* For which records of its section a line is printed. */
typedef enum {
  PLAN_LINE_EVERY,
  PLAN_LINE_SELF,  /* the one that the line above is of */
  PLAN_LINE_SPAN,  /* those in span `field` of that one */
  PLAN_LINE_OWNED, /* those whose `field` names that one */
} plan_line_of_t;

typedef struct plan_line plan_line_t;
struct plan_line {
  uint32_t section;
  plan_line_of_t of;
  const char *field;
  const char *when;         /* printed only where this field, or span, is there; or NULL */
  const char *lead;         /* before the text; or NULL */
  const char *by;           /* field whose member chooses among the texts; NULL: there is one */
  const char *const *texts; /* NULL for a member: not printed */
  const plan_line_t *lines; /* below each of these */
  uint32_t line_count;
};

extern const plan_line_t plan_lines[];
extern const uint32_t plan_line_count;

/* Text of a record inside of another one's line, by section. */
extern const char *const plan_item_texts[VLART_SECTION_ID_LIMIT];

#endif
