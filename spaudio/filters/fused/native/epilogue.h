/* What happens to a block of responses while it is in registers: the forward and the backward half
   of activation, gains and sum. Included by each target's translation unit, inside its namespace,
   after product.h and scratch.h. */

/* The gains of `rows` filters from m on, at a token: a vector of lanes each or, if BY_TOKEN, a
   scalar. */
template <int LANES, bool BY_TOKEN>
struct Gains {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  const Float *lanes;
  const float *tokens;
  int64_t filters, last;

  Gains(const Bank &bank, const Float *packed, int64_t item, int64_t m)
      : lanes(packed + m),
        tokens(bank.gains + item * bank.tokens * count_filters(bank) + m),
        filters(count_filters(bank)),
        last(bank.tokens - 1) {}

  /* A block may reach past the last token; what it computes there is not kept. */
  Float at(int64_t token, int i) const {
    if (!BY_TOKEN) return lanes[i];
    return V::splat(tokens[(token < last ? token : last) * filters + i]);
  }
};

/* Adds activated responses, weighted by their gains, to the output. */
template <int LANES, int ACC, int64_t ACTIVATION, bool BY_TOKEN>
struct Weigh {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  Gains<LANES, BY_TOKEN> gains;
  Float *y, *lost;

  template <int ROWS, int COLUMNS>
  inline void take(int64_t t, Float (&z)[ROWS][COLUMNS]) const {
#pragma GCC unroll 32
    for (int j = 0; j < COLUMNS; ++j) {
      Float sum = V::zero();
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i)
        sum += gains.at(t + j, i) * Activate<LANES, ACTIVATION>::value(z[i][j]);
      Product<LANES, ACC>::add(sum, y[t + j], lost[t + j]);
    }
  }
};

/* Turns the responses to one tile into their gradients, kept in halves for the two other products,
   and adds up the gradients of the gains. */
template <int LANES, class H, int64_t ACTIVATION, bool BY_TOKEN>
struct Differentiate {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef Activate<LANES, ACTIVATION> A;

  Gains<LANES, BY_TOKEN> gains;
  const Float *dy; /* gradient of the output, of all tokens */
  Float *dz[HALVES];
  int64_t dz_row;
  Float *gain_sums; /* one vector per filter */
  float *by_token;  /* (tokens, filters) of one item from filter m on, or null */
  int64_t start;    /* first token of the tile */

  template <int ROWS, int COLUMNS>
  inline void take(int64_t t, Float (&response)[ROWS][COLUMNS]) const {
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i) {
      Float sum = V::zero();
#pragma GCC unroll 32
      for (int j = 0; j < COLUMNS; j += 2) {
        const Float even = one(start + t + j, i, response[i][j], sum);
        const Float odd = one(start + t + j + 1, i, response[i][j + 1], sum);
        Float *const row[HALVES] = {dz[EVEN] + i * dz_row, dz[ODD] + i * dz_row,
                                    dz[BOTH] + i * dz_row};
        H::store(even, odd, row, (t + j) / 2);
      }
      if (!BY_TOKEN) gain_sums[i] += sum;
    }
  }

 private:
  inline Float one(int64_t token, int i, Float response, Float &sum) const {
    const Float grad = dy[token];
    const Float share = A::value(response) * grad;
    if (!BY_TOKEN)
      sum += share;
    else if (by_token && token <= gains.last)
      by_token[token * gains.filters + i] += V::sum(share);
    return A::gradient(response, gains.at(token, i) * grad);
  }
};
