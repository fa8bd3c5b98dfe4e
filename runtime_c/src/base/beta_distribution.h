/* P(p >= q - delta) of two independent Beta variables. The same operations in the same order as
   vlacompile/routing/beta.py, which says why; a test compares them. */
#ifndef VLART_BETA_H
#define VLART_BETA_H

#define VLART_BETA_LEAST 0.05 /* of a parameter */
#define VLART_BETA_MOST 1e5

/* p ~ Beta(a, b), q ~ Beta(c, d), parameters in [LEAST, MOST], 0 <= delta < 1. Bounded time: 246
   values of a continued fraction of at most 4000 rounds. Absolute error below 1e-9, and below
   1e-12 where all parameters are in [1, 1000]. */
double vlart_beta_not_worse(double a, double b, double c, double d, double delta);

#endif
