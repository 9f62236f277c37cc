#pragma once

#include <string>

#include "nn/module.h"

namespace millrace::nn {

class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(const Pool2dOptions& options) : options_(options) {}
  Variable forward(const Variable& x) override { return max_pool2d(x, options_); }
  std::string describe() const override;

 private:
  Pool2dOptions options_;
};

class AvgPool2d : public Module {
 public:
  explicit AvgPool2d(const Pool2dOptions& options) : options_(options) {}
  Variable forward(const Variable& x) override { return avg_pool2d(x, options_); }
  std::string describe() const override;

 private:
  Pool2dOptions options_;
};

class AdaptiveMaxPool2d : public Module {
 public:
  explicit AdaptiveMaxPool2d(Size2 output) : output_(output) {}
  Variable forward(const Variable& x) override { return adaptive_max_pool2d(x, output_); }
  std::string describe() const override;

 private:
  Size2 output_;
};

class AdaptiveAvgPool2d : public Module {
 public:
  explicit AdaptiveAvgPool2d(Size2 output) : output_(output) {}
  Variable forward(const Variable& x) override { return adaptive_avg_pool2d(x, output_); }
  std::string describe() const override;

 private:
  Size2 output_;
};

}  // namespace millrace::nn
