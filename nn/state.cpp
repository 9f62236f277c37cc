#include "nn/state.h"

#include <algorithm>
#include <array>
#include <bit>
#include <sha2.h>

namespace millrace::nn {

static_assert(std::endian::native == std::endian::little, "files and hashes hold little-endian numbers");

StateDict state_dict(const Module& module) {
  StateDict state;
  for (const auto& [name, parameter] : module.named_parameters()) {
    state.emplace_back(name, parameter.data());
  }
  for (const auto& [name, buffer] : module.named_buffers()) {
    state.emplace_back(name, buffer);
  }
  return state;
}

void load_state_dict(Module& module, const StateDict& state) {
  copy_by_name(state_dict(module), state, "load_state_dict: these weights do not fit " + module.kind());
}

void copy_by_name(StateDict own, const StateDict& state, std::string_view misfit) {
  std::map<std::string, const Tensor*> given;
  for (const auto& [name, tensor] : state) {
    given.emplace(name, &tensor);
  }
  std::string missing, unexpected, wrong;
  const auto list = [](std::string& text, const std::string& item) {
    text += (text.empty() ? "" : ", ") + item;
  };
  for (auto& [name, target] : own) {
    const auto found = given.find(name);
    if (found == given.end()) {
      list(missing, name);
    } else if (found->second->shape() != target.shape()) {
      list(wrong, fmt::format("{} is {}, expected {}", name, found->second->shape(), target.shape()));
    }
  }
  for (const auto& [name, tensor] : state) {
    const bool known = std::any_of(own.begin(), own.end(),
                                   [&name = name](const auto& entry) { return entry.first == name; });
    if (!known) {
      list(unexpected, name);
    }
  }
  if (!missing.empty() || !unexpected.empty() || !wrong.empty()) {
    std::string message(misfit);
    if (!missing.empty()) {
      message += "; missing: " + missing;
    }
    if (!unexpected.empty()) {
      message += "; unexpected: " + unexpected;
    }
    if (!wrong.empty()) {
      message += "; wrongly shaped: " + wrong;
    }
    throw InputError("{}", message);
  }
  for (auto& [name, target] : own) {
    target.copy_(*given.at(name));
  }
}

std::string weights_hash(const Module& module) {
  StateDict state = state_dict(module);
  std::sort(state.begin(), state.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  SHA2_CTX context;
  SHA256Init(&context);
  const auto add = [&](const void* data, std::size_t bytes) {
    SHA256Update(&context, static_cast<const std::uint8_t*>(data), bytes);
  };
  for (const auto& [name, tensor] : state) {
    const std::string head = fmt::format("{} {} {}\n", name, tensor.dtype(), tensor.shape());
    const Tensor bytes = tensor.to(kCpu).contiguous();
    add(head.data(), head.size());
    add(bytes.raw(), bytes.bytes());
  }
  std::array<std::uint8_t, SHA256_DIGEST_LENGTH> digest;
  SHA256Final(digest.data(), &context);
  std::string text;
  for (const std::uint8_t byte : digest) {
    text += fmt::format("{:02x}", byte);
  }
  return text;
}

}  // namespace millrace::nn
