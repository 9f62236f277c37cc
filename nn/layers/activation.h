#pragma once

#include <string>

#include "nn/module.h"

namespace millrace::nn {

struct ReLU : Module {
  Variable forward(const Variable& x) override { return relu(x); }
};
struct GELU : Module {
  Variable forward(const Variable& x) override { return gelu(x); }
};
struct Sigmoid : Module {
  Variable forward(const Variable& x) override { return sigmoid(x); }
};
struct Tanh : Module {
  Variable forward(const Variable& x) override { return tanh(x); }
};

class Softmax : public Module {
 public:
  explicit Softmax(int dim) : dim_(dim) {}
  Variable forward(const Variable& x) override { return softmax(x, dim_); }
  std::string describe() const override;

 private:
  int dim_;
};

class LogSoftmax : public Module {
 public:
  explicit LogSoftmax(int dim) : dim_(dim) {}
  Variable forward(const Variable& x) override { return log_softmax(x, dim_); }
  std::string describe() const override;

 private:
  int dim_;
};

}  // namespace millrace::nn
