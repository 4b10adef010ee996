// One product of Eigen's: the yardstick of the cost cases, work of the same kind.
#include <Eigen/Core>

#include <xsimd/xsimd.hpp>

void product(Eigen::MatrixXf const& a, Eigen::MatrixXf const& b, Eigen::MatrixXf& c) { c.noalias() = a * b; }
