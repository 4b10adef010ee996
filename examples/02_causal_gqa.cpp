// One idea: modifiers follow the tensors. `causal` hides the future; with fewer key heads than query heads (GQA),
// groups of query heads share one.

#include <heed/attention/attention.hpp>

#include <cstdio>

int main() {
  heed::index const batch = 1, heads_q = 4, heads_kv = 2, len = 5, dim = 8;
  heed::tensor<float, 4> q({batch, heads_q, len, dim});  // tensors are zero at birth
  heed::tensor<float, 4> k({batch, heads_kv, len, dim});
  heed::tensor<float, 4> v({batch, heads_kv, len, 1});

  // All keys alike, so every row is the plain mean of the values it may see; values tell head and position.
  for (heed::index g = 0; g < heads_kv; ++g)
    for (heed::index j = 0; j < len; ++j)
      v(0, g, j, 0) = static_cast<float>(100 * (g + 1) + j);

  heed::tensor<float, 4> const all = heed::attention(q, k, v);
  heed::tensor<float, 4> const past = heed::attention(q, k, v, heed::causal{});

  std::printf("values: 100 + position in key head 0, 200 + position in key head 1\n\n");
  std::printf("row        ");
  for (heed::index i = 0; i < len; ++i)
    std::printf("%7td", i);
  for (heed::index h = 0; h < heads_q; ++h) {
    std::printf("\n\nhead %td, all ", h);
    for (heed::index i = 0; i < len; ++i)
      std::printf("%7.1f", all(0, h, i, 0));
    std::printf("\n     causal");
    for (heed::index i = 0; i < len; ++i)
      std::printf("%7.1f", past(0, h, i, 0));
  }
  std::printf("\n\nHeads 0 and 1 read key head 0, heads 2 and 3 read key head 1.\n"
              "A causal row i is the mean over positions 0 to i; without the mask every row sees all five.\n");
}
