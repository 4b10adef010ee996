#include "kernels_dispatch.hpp"

#include <cstdio>
#include <cstring>

int main() {
  std::puts(consumer::select_kernels().instruction_set());
  return std::strcmp(consumer::select_kernels("baseline").instruction_set(), "") == 0;
}
