#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/optimizers/optimizer_options.h"

/// What a kind of optimizer is: a struct of options, in a file of its own, with two functions that
/// `Optimizer` calls. `facts_of` says what it is called, takes and keeps; `update` is one step of a part of
/// the weights. `OptimizerOptions` lists the kinds. Not for users.
namespace millrace::nn {

/// What options say of themselves.
struct OptimizerFacts {
  struct Number {
    std::string_view name;
    double value;            ///< From 0 up.
    bool below_one = false;  ///< The factor of an average.
  };
  std::string_view kind;                        ///< "SGD"
  std::vector<Number> numbers;                  ///< In the order of descriptions.
  std::vector<std::string_view> switches = {};  ///< Those that are on.
  std::vector<std::string> state;               ///< The buffers that it needs, by PyTorch's names.
  std::string_view fault = {};                  ///< What else is wrong with the options.
  bool only_matrices = false;                   ///< It steps no parameter of one dimension.
};

OptimizerFacts optimizer_facts(const OptimizerOptions& options);

}  // namespace millrace::nn
