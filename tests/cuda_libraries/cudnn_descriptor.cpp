#include "cudnn_descriptor.h"

#include <algorithm>
#include <fmt/format.h>

namespace millrace::fake_cudnn {
namespace {

[[noreturn]] void refuse(cudnnStatus_t status, std::string reason) {
  throw Refusal{status, std::move(reason)};
}
[[noreturn]] void refuse(std::string reason) { refuse(CUDNN_STATUS_BAD_PARAM, std::move(reason)); }

cudaDataType type_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
      return CUDA_R_32F;
    case CUDNN_DATA_HALF:
      return CUDA_R_16F;
    case CUDNN_DATA_BFLOAT16:
      return CUDA_R_16BF;
    default:
      refuse(CUDNN_STATUS_NOT_SUPPORTED, fmt::format("the fake has no numbers of type {}", int{type}));
  }
}

void check_tensor(const Descriptor& tensor) {
  const auto sizes = tensor.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
  const auto strides = tensor.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
  const auto alignment = tensor.one<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  if (sizes.size() != strides.size() || sizes.size() > CUDNN_DIM_MAX) {
    refuse(fmt::format("a tensor of {} dimensions with {} strides", sizes.size(), strides.size()));
  }
  if (std::ranges::min(sizes) < 0 || std::ranges::min(strides) < 0) {
    refuse("a tensor with negative sizes or strides");
  }
  const auto bytes = fakes::size_of(type_of(tensor.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)));
  if (alignment <= 0 || alignment % static_cast<std::int64_t>(bytes) != 0) {
    refuse(fmt::format("a tensor of {} bytes each, aligned {}", bytes, alignment));
  }
  for (const auto name : {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_ATTR_TENSOR_IS_BY_VALUE}) {
    if (tensor.has(name) && tensor.one<bool>(name)) {
      refuse(CUDNN_STATUS_NOT_SUPPORTED, "the fake's tensors lie in memory");
    }
  }
}

void check_window(const Descriptor& window) {
  const auto count = window.one<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
  const auto check = [&](cudnnBackendAttributeName_t name, std::int64_t least) {
    const auto given = window.all<std::int64_t>(name);
    if (static_cast<std::int64_t>(given.size()) != count || std::ranges::min(given) < least) {
      refuse(fmt::format("a convolution over {} dimensions, with attribute {}: {}", count, int{name},
                         fmt::join(given, " ")));
    }
  };
  check(CUDNN_ATTR_CONVOLUTION_DILATIONS, 1);
  check(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1);
  check(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0);
  check(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 0);
}

struct Names {
  fakes::Convolution::Result result;
  cudnnBackendAttributeName_t window, x, weight, y, alpha, beta;
};
const Names* names_of(cudnnBackendDescriptorType_t operation) {
  using enum fakes::Convolution::Result;
  static const std::map<cudnnBackendDescriptorType_t, Names> all = {
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
       {y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
       {x, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
       {weight, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}},
  };
  const auto found = all.find(operation);
  return found == all.end() ? nullptr : &found->second;
}

fakes::ConvolutionTensor tensor_of(const Descriptor& given) {
  fakes::ConvolutionTensor made;
  const auto sizes = given.all<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
  const auto strides = given.all<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
  if (sizes.size() != made.sizes.size()) {
    refuse(CUDNN_STATUS_NOT_SUPPORTED, "the fake convolves images of two dimensions");
  }
  made.type = type_of(given.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE));
  std::ranges::copy(sizes, made.sizes.begin());
  std::ranges::copy(strides, made.strides.begin());
  return made;
}

/// As the scalar's own type says.
double scalar_of(const Descriptor& given, cudnnBackendAttributeName_t name) {
  return given.values.at(name).type == CUDNN_TYPE_DOUBLE ? given.one<double>(name) : given.one<float>(name);
}

fakes::Convolution convolution_of_operation(const Descriptor& operation) {
  const Names& names = *names_of(operation.type);
  const Descriptor& window = *operation.child(names.window);
  fakes::Convolution made{.result = names.result,
                          .x = tensor_of(*operation.child(names.x)),
                          .weight = tensor_of(*operation.child(names.weight)),
                          .y = tensor_of(*operation.child(names.y))};
  const auto take = [&](std::array<std::int64_t, 2>& into, cudnnBackendAttributeName_t name) {
    const auto given = window.all<std::int64_t>(name);
    if (given.size() != into.size()) {
      refuse(CUDNN_STATUS_NOT_SUPPORTED, "the fake convolves images of two dimensions");
    }
    std::ranges::copy(given, into.begin());
  };
  take(made.padding_before, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
  take(made.padding_behind, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
  take(made.strides, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
  take(made.dilations, CUDNN_ATTR_CONVOLUTION_DILATIONS);
  made.flips_weights =
      window.one<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CONVOLUTION;
  made.alpha = scalar_of(operation, names.alpha);
  made.beta = scalar_of(operation, names.beta);
  return made;
}

}  // namespace

void Descriptor::put(cudnnBackendAttributeName_t name, Shared value) {
  values[name] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {std::move(value)}};
}

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t given, std::int64_t count,
                     const void* from) {
  const AttributeRow* const row = find_row(type, name);
  if (finalized || row == nullptr || from == nullptr) {
    refuse(fmt::format("attribute {} of a descriptor {} that {}", int{name}, int{type},
                       finalized        ? "is finalized"
                       : row == nullptr ? "has none such"
                                        : "is given no values"));
  }
  const bool is_scalar = row->type == CUDNN_TYPE_FLOAT && given == CUDNN_TYPE_DOUBLE;  // either will do
  if (given != row->type && !is_scalar) {
    refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
           fmt::format("attribute {} given as type {}, expected {}", int{name}, int{given}, int{row->type}));
  }
  if (count < row->least || count > row->most) {
    refuse(
        fmt::format("{} values of attribute {}, expected {} to {}", count, int{name}, row->least, row->most));
  }
  Value value{given, count, std::vector<std::byte>(bytes_of(given) * static_cast<std::size_t>(count)), {}};
  std::memcpy(value.bytes.data(), from, value.bytes.size());
  if (given == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto& shared = *static_cast<Shared*>(static_cast<const cudnnBackendDescriptor_t*>(from)[i]);
      value.descriptors.push_back(shared);
    }
    value.bytes.clear();
  }
  values[name] = std::move(value);
}

void Descriptor::finalize() {
  if (finalized) {
    refuse("a descriptor that is finalized already");
  }
  for (const AttributeRow& row : attribute_rows()) {
    if (row.descriptor == type && row.needed && !has(row.name)) {
      refuse(type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ? CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED
                                                             : CUDNN_STATUS_BAD_PARAM,
             fmt::format("descriptor {} without attribute {}", int{type}, int{row.name}));
    }
  }
  for (const auto& [name, value] : values) {
    if (!std::ranges::all_of(value.descriptors, [](const Shared& one) { return one->finalized; })) {
      refuse(fmt::format("attribute {} of descriptor {} is not finalized", int{name}, int{type}));
    }
  }
  if (type == CUDNN_BACKEND_TENSOR_DESCRIPTOR) {
    check_tensor(*this);
  } else if (type == CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR) {
    check_window(*this);
  } else if (names_of(type) != nullptr) {
    if (!convolution_of_operation(*this).fits()) {
      refuse("sizes of images, weights and window do not agree");
    }
  } else if (type == CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR && !values.empty()) {
    const auto count = [&](cudnnBackendAttributeName_t name) { return has(name) ? values[name].count : 0; };
    if (count(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS) != count(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)) {
      refuse("a variant pack with other numbers of ids and pointers");
    }
  }
  finalized = true;
}

fakes::Convolution convolution_of(const Descriptor& graph) {
  return convolution_of_operation(*graph.child(CUDNN_ATTR_OPERATIONGRAPH_OPS));
}

std::vector<Operand> operands_of(const Descriptor& graph) {
  const Descriptor& operation = *graph.child(CUDNN_ATTR_OPERATIONGRAPH_OPS);
  const Names& names = *names_of(operation.type);
  std::vector<Operand> made;
  for (const auto name : {names.x, names.weight, names.y}) {
    const Descriptor& tensor = *operation.child(name);
    made.push_back({tensor.one<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID),
                    tensor.one<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)});
  }
  return made;
}

}  // namespace millrace::fake_cudnn
