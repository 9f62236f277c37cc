#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/module.h"

/// The formula and the measures of scripts/make-goldens, repeated bit for bit.
namespace millrace::golden {

/// The generator of `values` in scripts/make-goldens: numbers in [-1, 1), multiples of 2^-23.
class Values {
 public:
  explicit Values(const std::string& name) {
    state_ = 0xCBF29CE484222325u;
    for (const char c : name) {
      state_ = (state_ ^ static_cast<std::uint8_t>(c)) * 0x100000001B3u;
    }
  }
  double next() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return static_cast<double>(z >> 40) * 0x1p-23 - 1;
  }

 private:
  std::uint64_t state_;
};

/// Either `shift` is 0 or `scale` a power of two, so that a fused multiply-add rounds alike.
inline Tensor tensor(const std::string& name, const Shape& shape, double scale = 1, double shift = 0) {
  Tensor made = empty(shape);
  Values values(name);
  for (std::int64_t i = 0; i < made.numel(); ++i) {
    made.data<float>()[i] = static_cast<float>(values.next() * scale + shift);
  }
  return made;
}

inline Tensor labels(const std::string& name, std::int64_t count, int classes) {
  Tensor made = empty({count}, {.dtype = DType::i64});
  Values values(name);
  for (std::int64_t i = 0; i < count; ++i) {
    made.data<std::int64_t>()[i] = static_cast<std::int64_t>((values.next() + 1) / 2 * classes);
  }
  return made;
}

inline void fill(nn::Module& net, const std::string& prefix) {
  for (auto& [name, parameter] : net.named_parameters()) {
    const Shape& shape = parameter.shape();
    const std::string key = prefix + "/" + name;
    if (shape.size() > 1) {
      const auto fan_in = static_cast<double>(shape.numel() / shape[0]);
      parameter.data().copy_(tensor(key, shape, std::sqrt(6 / fan_in)));
    } else if (name.ends_with("weight")) {
      parameter.data().copy_(tensor(key, shape, 0.5, 1));
    } else {
      parameter.data().copy_(tensor(key, shape, 0.25));
    }
  }
}

/// MILLRACE_TEST_FILES names the folder where the sources are not at hand (scripts/bundle).
inline nlohmann::json read(const std::string& name) {
  const char* given = std::getenv("MILLRACE_TEST_FILES");
  std::ifstream in(std::string(given != nullptr ? given : MILLRACE_TEST_FILES) + "/" + name + ".json");
  return nlohmann::json::parse(in);
}

/// The norm of (tensor - golden), estimated from the projections, relative to the golden's norm.
inline double error(const Tensor& tensor, const nlohmann::json& golden, const std::string& name) {
  const Tensor exact = tensor.to(kCpu).to(DType::f64).contiguous();
  const auto& projections = golden["projections"];
  double squares = 0;
  for (std::size_t i = 0; i < projections.size(); ++i) {
    Values signs(name + "/" + std::to_string(i));
    double sum = 0;
    for (std::int64_t j = 0; j < exact.numel(); ++j) {
      const double value = exact.data<double>()[j];
      sum += signs.next() < 0 ? -value : value;
    }
    const double off = sum - projections[i].get<double>();
    squares += off * off;
  }
  return std::sqrt(squares / static_cast<double>(projections.size())) / golden["norm"].get<double>();
}

inline double root_mean_square(const std::vector<double>& numbers) {
  double squares = 0;
  for (const double number : numbers) {
    squares += number * number;
  }
  return std::sqrt(squares / static_cast<double>(numbers.size()));
}

}  // namespace millrace::golden
