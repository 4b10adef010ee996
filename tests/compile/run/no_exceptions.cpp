// flags: -fno-exceptions
// Bad input without exceptions: HEED_FAIL gets the message, and nothing has been written.
#include <cstdio>
#include <cstdlib>
#include <cstring>

void failed(char const* message);
#define HEED_FAIL(message) failed(message)

#include <heed/attention/attention.hpp>

namespace {
Eigen::MatrixXf const q = Eigen::MatrixXf::Ones(3, 8), k = Eigen::MatrixXf::Ones(5, 4), v = Eigen::MatrixXf::Ones(5, 2);
Eigen::MatrixXf out = Eigen::MatrixXf::Constant(3, 2, 7);
}  // namespace

void failed(char const* message) {
  bool const right = std::strcmp(message, "attention: k.extent(dim) must equal q's 8, got 4") == 0;
  bool const untouched = (out.array() == 7).all();
  std::printf("%s\n", message);
  std::exit(right && untouched ? 0 : 1);
}

int main() {
  Eigen::MatrixXf good(3, 8);
  heed::attention(q, q, q, good);
  if (!good.isOnes(1e-6f))
    return 3;
  heed::attention(q, k, v, out);
  return 2;  // not refused
}
