/* [task] Instructions as vectors that need no encoder. As vlacompile/routing/words.py does it. */
#include <math.h>
#include <string.h>

#include "router/router.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define SHORTEST 3u
#define LONGEST 5u

size_t vlart_router_normalise(const char *text, char *out) {
  size_t used = 0;
  for (const char *c = text; *c != '\0'; c++) {
    unsigned byte = (unsigned char)*c;
    byte += byte >= 'A' && byte <= 'Z' ? 32 : 0;
    bool kept = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte >= 128;
    if (kept || (used > 0 && out[used - 1] != ' ')) {
      out[used++] = kept ? (char)byte : ' ';
    }
  }
  used -= used > 0 && out[used - 1] == ' ';
  out[used] = '\0';
  return used;
}

void vlart_router_count_ngrams(vlart_router_t *router, const char *normalised) {
  const vlart_router_record_t *rule = router->rule;
  const float *weights =
      vlart_record(&router->table.tables[VLART_SECTION_FLOATS], rule->text_weight_begin);
  size_t length = strlen(normalised);
  memset(router->words, 0, rule->text_dim * sizeof *router->words);
  for (size_t begin = 0; begin < length + 2; begin++) { /* of " text " */
    uint32_t digest = 2166136261u;                      /* FNV-1a */
    for (size_t i = begin; i < begin + LONGEST && i < length + 2; i++) {
      char c = i == 0 || i == length + 1 ? ' ' : normalised[i - 1];
      digest = (digest ^ (unsigned char)c) * 16777619u;
      if (i - begin + 1 >= SHORTEST) {
        router->words[digest % rule->text_dim] += 1.0;
      }
    }
  }
  for (uint32_t i = 0; i < rule->text_dim; i++) {
    router->words[i] *= (double)weights[i];
  }
}

static double cosine(const double *a, const float *b, uint32_t dim) {
  double ab = 0.0;
  double aa = 0.0;
  double bb = 0.0;
  for (uint32_t i = 0; i < dim; i++) {
    ab += a[i] * (double)b[i];
    aa += a[i] * a[i];
    bb += (double)b[i] * (double)b[i];
  }
  return aa > 0.0 && bb > 0.0 ? ab / sqrt(aa * bb) : 0.0;
}

uint32_t vlart_router_nearest(const vlart_router_t *router, const double *vector, uint32_t dim,
                              uint32_t centroid_begin, double nearest, double *out_similarity) {
  const float *centroids =
      vlart_record(&router->table.tables[VLART_SECTION_FLOATS], centroid_begin);
  double best = -2.0;
  uint32_t found = 0;
  for (uint32_t i = 0; i < router->rule->cluster_count; i++) {
    double similarity = cosine(vector, centroids + (size_t)i * dim, dim);
    if (similarity > best) {
      best = similarity;
      found = i;
    }
  }
  *out_similarity = best;
  return best >= nearest ? found : VLART_NONE;
}
