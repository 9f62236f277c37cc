#pragma once

#include <cstdint>
#include <string>

#include "nn/module.h"

namespace millrace::nn {

struct Flatten : Module {
  Variable forward(const Variable& x) override { return flatten(x); }
};

/// Pads with zeros; one number pads all four sides.
class ZeroPad2d : public Module {
 public:
  explicit ZeroPad2d(const Pad2d& pad) : pad_(pad) {}
  explicit ZeroPad2d(std::int64_t all) : pad_{all, all, all, all} {}
  Variable forward(const Variable& x) override { return pad2d(x, pad_); }
  std::string describe() const override;

 private:
  Pad2d pad_;
};

/// Pads with the image mirrored at its border pixels; one number pads all four sides.
class ReflectionPad2d : public Module {
 public:
  explicit ReflectionPad2d(const Pad2d& pad) : pad_(pad) {}
  explicit ReflectionPad2d(std::int64_t all) : pad_{all, all, all, all} {}
  Variable forward(const Variable& x) override { return pad2d(x, pad_, PadMode::reflect); }
  std::string describe() const override;

 private:
  Pad2d pad_;
};

}  // namespace millrace::nn
