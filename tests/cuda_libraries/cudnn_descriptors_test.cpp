// What the fake cuDNN takes and refuses, against the installed cuDNN where there is one.
#include <algorithm>
#include <cudnn.h>
#include <functional>
#include <gtest/gtest.h>
#include <iterator>
#include <memory>
#include <vector>

#include "library_fixtures.h"
#include "real_cudnn.h"
#include "tensor/cuda/conv/cudnn.h"

namespace millrace::fake_cudnn {
namespace {

using test::CudnnExecution;

/// The C functions, of the fake or of the installed library.
struct Api {
  decltype(&cudnnBackendCreateDescriptor) create;
  decltype(&cudnnBackendDestroyDescriptor) destroy;
  decltype(&cudnnBackendSetAttribute) set;
  decltype(&cudnnBackendGetAttribute) get;
  decltype(&cudnnBackendFinalize) finalize;
};
constexpr Api kFake = {cudnnBackendCreateDescriptor, cudnnBackendDestroyDescriptor, cudnnBackendSetAttribute,
                       cudnnBackendGetAttribute, cudnnBackendFinalize};

/// A descriptor of either.
class Object {
 public:
  Object(const Api& api, cudnnBackendDescriptorType_t type) : api_(api) { api.create(type, &made_); }
  ~Object() { api_.destroy(made_); }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  template <typename T>
  cudnnStatus_t set(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    return api_.set(made_, name, cuda::cudnn::kAttributeType<T>, static_cast<std::int64_t>(values.size()),
                    values.data());
  }
  cudnnStatus_t set(cudnnBackendAttributeName_t name, const Object& value) {
    return api_.set(made_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.made_);
  }
  template <typename T>
  cudnnStatus_t get(cudnnBackendAttributeName_t name, std::int64_t most, std::int64_t* count, T* into) {
    return api_.get(made_, name, cuda::cudnn::kAttributeType<T>, most, count, into);
  }
  cudnnStatus_t finalize() { return api_.finalize(made_); }

 private:
  Api api_;
  cudnnBackendDescriptor_t made_ = nullptr;
};
using Made = std::unique_ptr<Object>;

struct TensorOptions {
  std::vector<std::int64_t> sizes;
  std::int64_t id = 1, alignment = 16;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
};

Made tensor(const Api& api, const TensorOptions& options) {
  auto made = std::make_unique<Object>(api, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const auto& s = options.sizes;
  made->set<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE, {options.type});
  made->set<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, s);
  made->set<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES, {s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]});
  made->set<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, {options.id});
  made->set<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {options.alignment});
  return made;
}
Made finalized(Made made) {
  EXPECT_EQ(made->finalize(), CUDNN_STATUS_SUCCESS);
  return made;
}

using Numbers = std::vector<std::int64_t>;
struct WindowOptions {
  Numbers before = {1, 1}, behind = {1, 1}, strides = {1, 1}, dilations = {1, 1};
};
Made window(const Api& api, const WindowOptions& options = {}) {
  auto made = std::make_unique<Object>(api, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  made->set<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, {CUDNN_DATA_FLOAT});
  made->set<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE, {CUDNN_CROSS_CORRELATION});
  made->set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {2});
  made->set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS, options.dilations);
  made->set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, options.strides);
  made->set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, options.before);
  made->set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, options.behind);
  return made;
}

struct ForwardOptions {
  Numbers x = {2, 8, 6, 6}, weight = {4, 8, 3, 3}, y = {2, 4, 6, 6};
  bool with_weight = true, finalizes_x = true;
};
/// Of a forward convolution, when it is finalized.
cudnnStatus_t operation_status(const Api& api, const ForwardOptions& options) {
  const Made x = tensor(api, {options.x, 1}), weight = finalized(tensor(api, {options.weight, 2})),
             y = finalized(tensor(api, {options.y, 3})), around = finalized(window(api));
  if (options.finalizes_x) {
    x->finalize();
  }
  Object made(api, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  made.set<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, {1});
  made.set<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, {0});
  made.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, *around);
  made.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, *x);
  if (options.with_weight) {
    made.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, *weight);
  }
  made.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, *y);
  return made.finalize();
}

/// What a caller may do, and cuDNN's answer to it.
struct Rule {
  const char* what;
  cudnnStatus_t expected;
  std::function<cudnnStatus_t(const Api&)> act;
};

const Numbers kPlain = {2, 3, 4, 5};

std::vector<Rule> tensor_rules() {
  const auto tensor_status = [](const TensorOptions& options) {
    return [options](const Api& api) { return tensor(api, options)->finalize(); };
  };
  return {
      {"a tensor", CUDNN_STATUS_SUCCESS, tensor_status({kPlain})},
      {"a tensor of bf16, aligned as its elements", CUDNN_STATUS_SUCCESS,
       tensor_status({kPlain, 1, 2, CUDNN_DATA_BFLOAT16})},
      {"alignment below an element", CUDNN_STATUS_BAD_PARAM, tensor_status({kPlain, 1, 2})},
      {"no alignment", CUDNN_STATUS_BAD_PARAM, tensor_status({kPlain, 1, 0})},
      {"a negative size", CUDNN_STATUS_BAD_PARAM, tensor_status({{2, -3, 4, 5}})},
      {"a tensor of nothing", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) { return Object(api, CUDNN_BACKEND_TENSOR_DESCRIPTOR).finalize(); }},
  };
}

/// Of setting and asking for attributes.
std::vector<Rule> attribute_rules() {
  return {
      {"other numbers of sizes and strides", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) {
         const Made made = tensor(api, {kPlain});
         made->set<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES, {1, 2, 3});
         return made->finalize();
       }},
      {"another kind's attribute", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) {
         return tensor(api, {kPlain})->set<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {1});
       }},
      {"another type", CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
       [](const Api& api) { return tensor(api, {kPlain})->set<float>(CUDNN_ATTR_TENSOR_UNIQUE_ID, {1}); }},
      {"two values for one", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) {
         return tensor(api, {kPlain})->set<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, {1, 2});
       }},
      {"set when finalized", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) {
         return finalized(tensor(api, {kPlain}))->set<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, {2});
       }},
      {"finalized twice", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) { return finalized(tensor(api, {kPlain}))->finalize(); }},
      {"asked before it is finalized", CUDNN_STATUS_NOT_INITIALIZED,
       [](const Api& api) {
         std::int64_t count = 0, value = 0;
         return tensor(api, {kPlain})->get(CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &count, &value);
       }},
      {"asked for another kind's attribute", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) {
         std::int64_t count = 0, value = 0;
         return finalized(tensor(api, {kPlain}))->get(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1, &count, &value);
       }},
      {"asked as another type", CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
       [](const Api& api) {
         std::int64_t count = 0;
         float value = 0;
         return finalized(tensor(api, {kPlain}))->get(CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &count, &value);
       }},
  };
}

std::vector<Rule> window_rules() {
  const auto window_status = [](const WindowOptions& options) {
    return [options](const Api& api) { return window(api, options)->finalize(); };
  };
  return {
      {"a window", CUDNN_STATUS_SUCCESS, window_status({})},
      {"uneven paddings", CUDNN_STATUS_SUCCESS, window_status({{0, 1}, {2, 0}})},
      {"negative padding", CUDNN_STATUS_BAD_PARAM, window_status({{-1, 0}})},
      {"a stride of 0", CUDNN_STATUS_BAD_PARAM, window_status({.strides = {0, 1}})},
      {"a dilation of 0", CUDNN_STATUS_BAD_PARAM, window_status({.dilations = {1, 0}})},
      {"three paddings", CUDNN_STATUS_BAD_PARAM, window_status({{1, 1, 1}})},
      {"one stride", CUDNN_STATUS_BAD_PARAM, window_status({.strides = {1}})},
      {"a window of nothing", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) { return Object(api, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR).finalize(); }},
  };
}

std::vector<Rule> convolution_rules() {
  const auto operation = [](const ForwardOptions& options) {
    return [options](const Api& api) { return operation_status(api, options); };
  };
  return {
      {"a convolution", CUDNN_STATUS_SUCCESS, operation({})},
      {"one in two groups", CUDNN_STATUS_SUCCESS, operation({.weight = {4, 4, 3, 3}})},
      {"an image that is not finalized", CUDNN_STATUS_BAD_PARAM, operation({.finalizes_x = false})},
      {"no weight", CUDNN_STATUS_BAD_PARAM, operation({.with_weight = false})},
      {"another height of the result", CUDNN_STATUS_BAD_PARAM, operation({.y = {2, 4, 5, 6}})},
      {"another width of the result", CUDNN_STATUS_BAD_PARAM, operation({.y = {2, 4, 6, 7}})},
      {"other channels of the result", CUDNN_STATUS_BAD_PARAM, operation({.y = {2, 5, 6, 6}})},
      {"another number of results", CUDNN_STATUS_BAD_PARAM, operation({.y = {3, 4, 6, 6}})},
      {"channels that no groups divide", CUDNN_STATUS_BAD_PARAM, operation({.weight = {4, 3, 3, 3}})},
      {"outputs that the groups do not divide", CUDNN_STATUS_BAD_PARAM,
       operation({.weight = {5, 4, 3, 3}, .y = {2, 5, 6, 6}})},
  };
}

std::vector<Rule> other_rules() {
  return {
      {"a graph of nothing", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) { return Object(api, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR).finalize(); }},
      {"heuristics for nothing", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) { return Object(api, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR).finalize(); }},
      {"a plan of nothing", CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
       [](const Api& api) { return Object(api, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR).finalize(); }},
      {"an empty variant pack", CUDNN_STATUS_SUCCESS,
       [](const Api& api) { return Object(api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR).finalize(); }},
      {"more ids than pointers", CUDNN_STATUS_BAD_PARAM,
       [](const Api& api) {
         Object pack(api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
         pack.set<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {1, 2, 3});
         pack.set<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, {&pack, &pack});
         return pack.finalize();
       }},
  };
}

std::vector<Rule> rules() {
  std::vector<Rule> all;
  for (const auto& of : {tensor_rules, attribute_rules, window_rules, convolution_rules, other_rules}) {
    std::ranges::move(of(), std::back_inserter(all));
  }
  return all;
}

TEST_F(CudnnExecution, DescriptorsAreTakenAndRefusedAsTheTableSays) {
  for (const Rule& rule : rules()) {
    EXPECT_EQ(rule.act(kFake), rule.expected) << rule.what;
  }
}

/// So that the table holds no misreadings of ours.
TEST_F(CudnnExecution, TheInstalledLibraryAnswersAsTheTableSays) {
  const RealLibrary* const real = real_library();
  if (real == nullptr) {
    GTEST_SKIP() << "no cuDNN 9 is installed";
  }
  const Api api = {real->create, real->destroy, real->set, real->get, real->finalize};
  for (const Rule& rule : rules()) {
    EXPECT_EQ(rule.act(api), rule.expected) << rule.what;
  }
}

}  // namespace
}  // namespace millrace::fake_cudnn
