#include "nn/module.h"

#include <algorithm>
#include <cstdlib>
#include <cxxabi.h>
#include <typeinfo>
#include <unordered_set>

namespace millrace::nn {

namespace {

/// Calls `f(prefix, module)` for `module` and all below it, parents first; a prefix is "" or "layer1.0.".
template <typename M, typename F>
void walk(M& module, const std::string& prefix, const F& f) {
  f(prefix, module);
  for (const auto& [name, child] : module.children()) {
    walk<M>(*child, prefix + name + ".", f);
  }
}

void print(std::ostream& out, const Module& module, const std::string& indent) {
  out << module.describe();
  if (module.children().empty()) {
    return;
  }
  out << " (\n";
  for (const auto& [name, child] : module.children()) {
    out << indent << "  (" << name << "): ";
    print(out, *child, indent + "  ");
    out << '\n';
  }
  out << indent << ')';
}

}  // namespace

Variable Module::add_parameter(std::string name, Tensor value) {
  Variable parameter(std::move(value), true);
  parameters_.emplace_back(std::move(name), parameter);
  return parameter;
}

std::vector<std::pair<std::string, Variable>> Module::named_parameters() const {
  std::vector<std::pair<std::string, Variable>> found;
  std::unordered_set<const void*> seen;
  walk(*this, "", [&](const std::string& prefix, const Module& module) {
    for (const auto& [name, parameter] : module.parameters_) {
      if (seen.insert(parameter.id()).second) {
        found.emplace_back(prefix + name, parameter);
      }
    }
  });
  return found;
}

std::vector<Variable> Module::parameters() const {
  std::vector<Variable> found;
  for (auto& [name, parameter] : named_parameters()) {
    found.push_back(parameter);
  }
  return found;
}

std::vector<std::pair<std::string, Tensor>> Module::named_buffers() const {
  std::vector<std::pair<std::string, Tensor>> found;
  std::unordered_set<const Tensor*> seen;
  walk(*this, "", [&](const std::string& prefix, const Module& module) {
    for (const auto& [name, buffer] : module.buffers_) {
      if (seen.insert(buffer).second) {
        found.emplace_back(prefix + name, *buffer);
      }
    }
  });
  return found;
}

std::vector<Module*> Module::modules() {
  std::vector<Module*> found;
  walk(*this, "", [&](const std::string&, Module& module) {
    if (std::find(found.begin(), found.end(), &module) == found.end()) {
      found.push_back(&module);
    }
  });
  return found;
}

void Module::train(bool on) {
  for (Module* module : modules()) {
    module->training_ = on;
  }
}

void Module::zero_grad() {
  for (Variable& parameter : parameters()) {
    parameter.zero_grad();
  }
}

void Module::to(Device device) {
  for (Module* module : modules()) {
    for (auto& [name, parameter] : module->parameters_) {
      parameter.data() = parameter.data().to(device);
    }
    for (auto& [name, buffer] : module->buffers_) {
      *buffer = buffer->to(device);
    }
  }
}

std::string Module::kind() const {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(typeid(*this).name(), nullptr, nullptr, &status), &std::free);
  // Of "void f<std::vector<int>>(int)::Net" what follows the last colon; a template's arguments and a
  // function's parameters have namespaces of their own.
  std::string name;
  int depth = 0;
  for (const char c : std::string_view(text ? text.get() : typeid(*this).name())) {
    depth += c == '<' || c == '(' ? 1 : 0;
    if (depth == 0) {
      name = c == ':' ? "" : name + c;
    }
    depth -= c == '>' || c == ')' ? 1 : 0;
  }
  return name;
}

std::string Module::describe() const { return children_.empty() ? kind() + " ()" : kind(); }

std::ostream& operator<<(std::ostream& out, const Module& module) {
  print(out, module, "");
  return out;
}

}  // namespace millrace::nn
