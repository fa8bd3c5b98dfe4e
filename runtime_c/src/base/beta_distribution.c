
#include "base/beta_distribution.h"

#include <math.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* gcc contracts nothing with -std=c11 */
#endif

#define REACH 7.0
#define STEPS 240
#define CLOSE 3.7
#define ROUNDS 4000
#define TINY 1e-300

/* A Beta distribution: where its continued fractions meet, and what they sum to there. */
typedef struct {
  double a;
  double b;
  double split;
  double norm;
} beta_t;

/* DLMF 8.17.22 by the modified method of Lentz. */
static double fraction(double a, double b, double x) {
  double c = 1.0;
  double d = 1.0 - (a + b) * x / (a + 1.0);
  d = 1.0 / (fabs(d) < TINY ? TINY : d);
  double h = d;
  for (int i = 1; i <= ROUNDS; i++) {
    double m = i;
    double terms[2] = {
        m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
        -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
    };
    double change = 1.0;
    for (int k = 0; k < 2; k++) {
      d = 1.0 + terms[k] * d;
      d = 1.0 / (fabs(d) < TINY ? TINY : d);
      c = 1.0 + terms[k] / c;
      c = fabs(c) < TINY ? TINY : c;
      change = d * c;
      h *= change;
    }
    if (fabs(change - 1.0) < 1e-15) {
      break;
    }
  }
  return h;
}

static beta_t make(double a, double b) {
  double m = (a + 1.0) / (a + b + 2.0);
  return (beta_t){a, b, m, fraction(a, b, m) / a + fraction(b, a, 1.0 - m) / b};
}

/* At x = 1 - rest. */
static double cdf(const beta_t *f, double x, double rest) {
  if (x <= 0.0) {
    return 0.0;
  }
  if (rest <= 0.0) {
    return 1.0;
  }
  double front = exp(f->a * log(x / f->split) + f->b * log(rest / (1.0 - f->split))) / f->norm;
  return x < f->split ? front * fraction(f->a, f->b, x) / f->a
                      : 1.0 - front * fraction(f->b, f->a, rest) / f->b;
}

/* One node of the trapezoidal rule at s: f_p(x) F_q(x + delta) dx/ds, apart from a constant. */
static double node(const beta_t *p, const beta_t *q, double delta, double end, double s) {
  double centre = log(p->a / p->b);
  double width = sqrt(1.0 / p->a + 1.0 / p->b);
  double w = s + exp(s) - 1.0;
  double v = w > 0.0 ? end - log1p(exp(-w)) : end + w - log1p(exp(w));
  double weight = (1.0 + exp(s)) / (1.0 + exp(w));
  double t = centre + width * sinh(v);
  double log_x = t < 0.0 ? t - log1p(exp(t)) : -log1p(exp(-t));
  double log_rest = log_x - t;
  double density =
      exp(p->a * (log_x - log(p->split)) + p->b * (log_rest - log(1.0 - p->split))) / p->norm;
  double mass = weight * density * cosh(v);
  return mass > 1e-30 ? mass * cdf(q, exp(log_x) + delta, exp(log_rest) - delta) : 0.0;
}

double vlart_beta_not_worse(double a, double b, double c, double d, double delta) {
  beta_t p;
  beta_t q;
  if (1.0 / c + 1.0 / d < 1.0 / a + 1.0 / b) {
    p = make(d, c);
    q = make(b, a);
  } else {
    p = make(a, b);
    q = make(c, d);
  }
  double width = sqrt(1.0 / p.a + 1.0 / p.b);
  double beyond = 0.0;
  double end = REACH;
  if (delta > 0.0) {
    beyond = 1.0 - cdf(&p, 1.0 - delta, delta);
    double v = asinh((log((1.0 - delta) / delta) - log(p.a / p.b)) / width);
    end = v < -REACH ? -REACH : v < REACH ? v : REACH;
  }
  double step = (end + REACH + CLOSE) / STEPS;
  double total = 0.0;
  for (int i = 0; i <= STEPS; i++) {
    total += node(&p, &q, delta, end, CLOSE - i * step);
  }
  double result = beyond + total * width * step;
  return result < 0.0 ? 0.0 : result > 1.0 ? 1.0 : result;
}
