#include "nn/layers/shape.h"

namespace millrace::nn {

namespace {

std::string describe_pad(const Module& module, const Pad2d& pad) {
  return fmt::format("{}(({}, {}, {}, {}))", module.kind(), pad.left, pad.right, pad.top, pad.bottom);
}

}  // namespace

std::string ZeroPad2d::describe() const { return describe_pad(*this, pad_); }
std::string ReflectionPad2d::describe() const { return describe_pad(*this, pad_); }

}  // namespace millrace::nn
