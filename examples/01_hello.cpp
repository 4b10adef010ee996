// One idea: attention reads and writes the memory you have. Eigen matrices or maps go in, rows of [len, dim].

#include <heed/attention/attention.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <vector>

int main() {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  // Four keys that point in four directions, each with a value: a small dictionary.
  matrix const keys = 20 * matrix::Identity(4, 4);
  matrix values(4, 2);
  values << 10, -10,  //
      20, -20,        //
      30, -30,        //
      40, -40;

  // Three queries in plain memory: one aims at key 2, one halfway between keys 0 and 1, one nowhere.
  std::vector<float> const memory{0, 0, 1, 0,  //
                                  1, 1, 0, 0,  //
                                  0, 0, 0, 0};
  Eigen::Map<matrix const> const queries(memory.data(), 3, 4);

  matrix out(3, 2);
  heed::attention(queries, keys, values, out);  // softmax(q kᵀ / √dim) v

  char const* const aims[] = {"key 2", "keys 0 and 1", "nothing"};
  std::printf("a query that aims at   reads\n");
  for (int i = 0; i < 3; ++i)
    std::printf("%-20s %6.2f %7.2f\n", aims[i], out(i, 0), out(i, 1));
  std::printf("\nAttention is a soft lookup: a clear query reads one value, a vague one reads an average.\n");
}
