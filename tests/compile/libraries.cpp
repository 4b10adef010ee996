// What any program that uses heed compiles anyway: the yardstick of the cost cases.
#include <Eigen/Core>

#include <xsimd/xsimd.hpp>
