// What the fake cuDNN computes, and refuses to.
#include <cudnn.h>
#include <future>
#include <gmock/gmock.h>
#include <limits>
#include <random>

#include "convolution.h"
#include "library_fixtures.h"
#include "tensor/cuda/conv/cudnn.h"
#include "tensor/cuda/runtime/runtime.h"

namespace millrace::fake_cudnn {
namespace {

using cuda::cudnn::Descriptor;
using test::kGpu;
using Sizes = std::array<std::int64_t, 4>;
using Result = fakes::Convolution::Result;
using test::CudnnExecution;

using Numbers = std::vector<std::int64_t>;

/// A convolution through the C functions, by engine 0: fields are changed by tests.
struct Execution {
  fakes::Convolution c;
  std::array<std::int64_t, 3> alignments = {16, 16, 16}, ids = {1, 2, 3};
  std::array<void*, 3> pointers{};
  void* workspace = nullptr;
  bool finalizes = true;
  cudnnHandle_t handle = nullptr;
  Stream stream = Stream::make(kGpu);

  Execution() {
    cudnnCreate(&handle);
    cudnnSetStream(handle, cuda::native(stream));
  }
  ~Execution() { cudnnDestroy(handle); }
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;

  static Numbers list(const auto& values) { return {values.begin(), values.end()}; }

  Descriptor tensor(std::size_t i, const fakes::ConvolutionTensor& given) const {
    Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, {given.type == CUDA_R_32F   ? CUDNN_DATA_FLOAT
                                           : given.type == CUDA_R_16F ? CUDNN_DATA_HALF
                                                                      : CUDNN_DATA_BFLOAT16});
    made.set<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, given.sizes);
    made.set<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES, given.strides);
    made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {static_cast<std::int64_t>(i) + 1});
    made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {alignments.at(i)});
    made.finalize();
    return made;
  }

  Descriptor graph() const {
    Descriptor around(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    around.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, {CUDNN_DATA_FLOAT});
    around.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE,
               {c.flips_weights ? CUDNN_CONVOLUTION : CUDNN_CROSS_CORRELATION});
    around.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {std::int64_t{2}});
    around.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS, c.dilations);
    around.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, c.strides);
    around.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, c.padding_before);
    around.set<std::int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, c.padding_behind);
    around.finalize();
    struct Names {
      cudnnBackendDescriptorType_t type;
      std::array<cudnnBackendAttributeName_t, 6> names;
    };
    static const std::map<Result, Names> all = {
        {Result::y,
         {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
          {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}}},
        {Result::x,
         {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
          {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}}},
        {Result::weight,
         {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}}}};
    const auto& [type, names] = all.at(c.result);
    Descriptor operation(type);
    operation.set(names[0], around);
    operation.set(names[1], tensor(0, c.x));
    operation.set(names[2], tensor(1, c.weight));
    operation.set(names[3], tensor(2, c.y));
    operation.set(names[4], {static_cast<float>(c.alpha)});
    operation.set(names[5], {static_cast<float>(c.beta)});
    operation.finalize();
    Descriptor made(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    made.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    made.finalize();
    return made;
  }

  Descriptor plan(std::int64_t index = 0) const {
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR), config(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR),
        made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph());
    engine.set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {index});
    engine.finalize();
    config.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    config.finalize();
    made.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (finalizes) {
      made.finalize();
    }
    return made;
  }

  cudnnStatus_t run(std::int64_t engine = 0) const {
    Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids);
    pack.set<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, pointers);
    pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, {workspace});
    pack.finalize();
    const cudnnStatus_t status = cudnnBackendExecute(handle, plan(engine).get(), pack.get());
    stream.synchronize();
    return status;
  }
};

struct Case {
  Sizes x, weight;
  std::array<std::int64_t, 2> before, behind, strides, dilations;
};
const Case kCases[] = {
    {{2, 3, 5, 6}, {4, 3, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
    {{1, 40, 4, 4}, {36, 40, 1, 1}, {0, 0}, {0, 0}, {1, 1}, {1, 1}},
    {{3, 6, 7, 9}, {8, 3, 2, 3}, {0, 2}, {1, 0}, {2, 3}, {1, 2}},
    {{2, 9, 6, 5}, {9, 1, 3, 2}, {2, 0}, {1, 1}, {1, 2}, {2, 1}},
    {{1, 1, 3, 3}, {1, 1, 5, 5}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
};

fakes::ConvolutionTensor tensor_of(const Sizes& s, cudaDataType type, bool channels_last) {
  return {type, s,
          channels_last ? Sizes{s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]}
                        : Sizes{s[1] * s[2] * s[3], s[2] * s[3], s[3], 1}};
}

fakes::Convolution convolution_of(const Case& one, Result result, cudaDataType type, bool channels_last) {
  fakes::Convolution c{.result = result,
                       .padding_before = one.before,
                       .padding_behind = one.behind,
                       .strides = one.strides,
                       .dilations = one.dilations};
  c.x = tensor_of(one.x, type, channels_last);
  c.weight = tensor_of(one.weight, type, channels_last);
  const auto size = [&](std::size_t i) {
    return (one.x[i + 2] + one.before[i] + one.behind[i] - one.dilations[i] * (one.weight[i + 2] - 1) - 1) /
               one.strides[i] +
           1;
  };
  c.y = tensor_of({one.x[0], one.weight[0], size(0), size(1)}, type, channels_last);
  return c;
}

/// Adds up in seven loops, product by product.
std::vector<double> expected_of(const fakes::Convolution& c, const std::array<std::vector<double>, 3>& all) {
  const auto at = [](const fakes::ConvolutionTensor& t, std::int64_t a, std::int64_t b, std::int64_t i,
                     std::int64_t j) {
    return static_cast<std::size_t>(a * t.strides[0] + b * t.strides[1] + i * t.strides[2] +
                                    j * t.strides[3]);
  };
  const std::size_t result = c.result == Result::x ? 0 : c.result == Result::weight ? 1 : 2;
  std::vector<double> sums(all.at(result).size());
  const std::int64_t groups = c.x.sizes[1] / c.weight.sizes[1];
  for (std::int64_t n = 0; n < c.y.sizes[0]; ++n) {
    for (std::int64_t k = 0; k < c.y.sizes[1]; ++k) {
      for (std::int64_t p = 0; p < c.y.sizes[2]; ++p) {
        for (std::int64_t q = 0; q < c.y.sizes[3]; ++q) {
          for (std::int64_t i = 0; i < c.weight.sizes[1]; ++i) {
            for (std::int64_t r = 0; r < c.weight.sizes[2]; ++r) {
              for (std::int64_t s = 0; s < c.weight.sizes[3]; ++s) {
                const std::int64_t h = p * c.strides[0] - c.padding_before[0] + r * c.dilations[0],
                                   w = q * c.strides[1] - c.padding_before[1] + s * c.dilations[1];
                if (h < 0 || h >= c.x.sizes[2] || w < 0 || w >= c.x.sizes[3]) {
                  continue;
                }
                const std::int64_t channel = k / (c.y.sizes[1] / groups) * c.weight.sizes[1] + i;
                const std::array<std::size_t, 3> places = {
                    at(c.x, n, channel, h, w),
                    c.flips_weights ? at(c.weight, k, i, c.weight.sizes[2] - 1 - r, c.weight.sizes[3] - 1 - s)
                                    : at(c.weight, k, i, r, s),
                    at(c.y, n, k, p, q)};
                double product = 1;
                for (std::size_t one = 0; one < 3; ++one) {
                  product *= one == result ? 1 : all[one][places[one]];
                }
                sums[places[result]] += product;
              }
            }
          }
        }
      }
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    double rounded = 0;
    fakes::store(&rounded, 0, c.x.type, c.alpha * sums[i] + c.beta * all.at(result)[i]);
    sums[i] = fakes::load(&rounded, 0, c.x.type);
  }
  return sums;
}

/// Memory for a convolution, in eighths.
struct Filled {
  Filled(const fakes::Convolution& c, std::mt19937_64& engine) : type(c.x.type) {
    std::uniform_int_distribution<int> eighths(-16, 16);
    const std::array<const fakes::ConvolutionTensor*, 3> tensors = {&c.x, &c.weight, &c.y};
    for (std::size_t i = 0; i < 3; ++i) {
      numbers[i].resize(static_cast<std::size_t>(tensors[i]->elements()));
      Tensor host = empty({static_cast<std::int64_t>(tensors[i]->bytes())}, {.dtype = DType::u8});
      for (std::size_t place = 0; place < numbers[i].size(); ++place) {
        numbers[i][place] = eighths(engine) / 8.0;
        fakes::store(host.raw(), static_cast<std::int64_t>(place), type, numbers[i][place]);
      }
      memory[i] = host.to(kGpu);
    }
    workspace = empty({4096}, {.dtype = DType::u8, .device = kGpu});
    current_stream(kGpu).synchronize();
  }
  void give(Execution& run) const {
    for (std::size_t i = 0; i < 3; ++i) {
      run.pointers[i] = memory[i].raw();
    }
    run.workspace = workspace.raw();
  }
  std::vector<double> now(std::size_t i) const {
    const Tensor host = memory.at(i).to(kCpu);
    std::vector<double> made;
    for (std::size_t place = 0; place < numbers.at(i).size(); ++place) {
      made.push_back(fakes::load(host.raw(), static_cast<std::int64_t>(place), type));
    }
    return made;
  }

  cudaDataType type;
  std::array<std::vector<double>, 3> numbers;
  std::array<Tensor, 3> memory;
  Tensor workspace;
};

TEST_F(CudnnExecution, TheRecordedGraphIsComputed) {
  std::mt19937_64 engine = test::random_engine();
  for (const Case& one : kCases) {
    for (const Result result : {Result::y, Result::x, Result::weight}) {
      for (const cudaDataType type : {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF}) {
        for (int choice = 0; choice < 4; ++choice) {
          Execution run;
          run.c = convolution_of(one, result, type, choice != 1);
          run.c.flips_weights = choice == 2;
          run.c.alpha = choice == 3 ? -0.5 : 1;
          run.c.beta = choice == 3 ? 2 : 0;
          const Filled filled(run.c, engine);
          filled.give(run);
          ASSERT_EQ(run.run(), CUDNN_STATUS_SUCCESS);
          const std::size_t to = result == Result::x ? 0 : result == Result::weight ? 1 : 2;
          ASSERT_EQ(filled.now(to), expected_of(run.c, filled.numbers))
              << "choice " << choice << ", type " << type << ", seed " << test::seed();
        }
      }
    }
  }
}

struct BadRun {
  const char* what;
  cudnnStatus_t expected;
  void (*spoil)(Execution&, std::vector<float>& host);
};
const BadRun kBadRuns[] = {
    {"a misaligned image", CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
     [](Execution& run, auto&) { run.pointers[0] = static_cast<std::byte*>(run.pointers[0]) + 8; }},
    {"a misaligned result", CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
     [](Execution& run, auto&) { run.pointers[2] = static_cast<std::byte*>(run.pointers[2]) + 4; }},
    {"memory that ends too early", CUDNN_STATUS_EXECUTION_FAILED,
     [](Execution& run, auto&) { run.pointers[1] = static_cast<std::byte*>(run.pointers[1]) + 16; }},
    {"the host's memory", CUDNN_STATUS_EXECUTION_FAILED,
     [](Execution& run, std::vector<float>& host) {
       run.alignments = {4, 4, 4};
       run.pointers[0] = host.data();
     }},
    {"no image", CUDNN_STATUS_BAD_PARAM_NULL_POINTER,
     [](Execution& run, auto&) { run.pointers[0] = nullptr; }},
    {"an id twice", CUDNN_STATUS_BAD_PARAM,
     [](Execution& run, auto&) {
       run.ids = {1, 2, 2};
     }},
    {"an unknown id", CUDNN_STATUS_BAD_PARAM,
     [](Execution& run, auto&) {
       run.ids = {1, 2, 4};
     }},
    {"no workspace", CUDNN_STATUS_BAD_PARAM_NULL_POINTER,
     [](Execution& run, auto&) { run.workspace = nullptr; }},
    {"too little workspace", CUDNN_STATUS_EXECUTION_FAILED,
     [](Execution& run, auto&) { run.workspace = static_cast<std::byte*>(run.workspace) + 256; }},
    {"the result over an image", CUDNN_STATUS_BAD_PARAM,
     [](Execution& run, auto&) { run.pointers[1] = run.pointers[2]; }},
    {"a plan that is not finalized", CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
     [](Execution& run, auto&) { run.finalizes = false; }},
    {"the default stream", CUDNN_STATUS_EXECUTION_FAILED,
     [](Execution& run, auto&) { cudnnSetStream(run.handle, nullptr); }},
};

TEST_F(CudnnExecution, WhatCannotRunIsRefused) {
  std::mt19937_64 engine = test::random_engine();
  for (const BadRun& row : kBadRuns) {
    Execution run;
    run.c = convolution_of(kCases[0], Result::y, CUDA_R_32F, true);
    const Filled filled(run.c, engine);
    filled.give(run);
    std::vector<float> host(1024);
    row.spoil(run, host);
    EXPECT_EQ(run.run(), row.expected) << row.what;
    EXPECT_EQ(filled.now(2), filled.numbers[2]) << row.what;
  }
}

TEST_F(CudnnExecution, ConvolutionsWaitForTheirStream) {
  std::mt19937_64 engine = test::random_engine();
  Execution run;
  run.c = convolution_of(kCases[0], Result::y, CUDA_R_32F, true);
  const Filled filled(run.c, engine);
  filled.give(run);
  std::promise<void> open;
  std::future<void> opened = open.get_future();
  cudaLaunchHostFunc(
      cuda::native(run.stream), [](void* data) { static_cast<std::future<void>*>(data)->wait(); }, &opened);
  std::future<cudnnStatus_t> done = std::async(std::launch::async, [&] {
    cudaSetDevice(0);
    return run.run();
  });
  EXPECT_EQ(filled.now(2), filled.numbers[2]) << "before its turn";
  open.set_value();
  EXPECT_EQ(done.get(), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(filled.now(2), expected_of(run.c, filled.numbers));
}

TEST_F(CudnnExecution, TensorCoresKeepTenBitsOfF32) {
  for (const auto& [engine, expected] : {std::pair(0, 1 + 0x1p-12), std::pair(1, 1.0)}) {
    Execution run;
    run.c = convolution_of({{1, 1, 1, 1}, {1, 1, 1, 1}, {0, 0}, {0, 0}, {1, 1}, {1, 1}}, Result::y,
                           CUDA_R_32F, true);
    std::mt19937_64 unused(1);
    Filled filled(run.c, unused);
    filled.give(run);
    filled.memory[0].copy_(from_blob(std::vector<float>{1 + 0x1p-12f}.data(), {4}, {.dtype = DType::u8}));
    Tensor one = full({1}, 1);
    filled.memory[1].copy_(from_blob(one.raw(), {4}, {.dtype = DType::u8}));
    current_stream(kGpu).synchronize();
    ASSERT_EQ(run.run(engine), CUDNN_STATUS_SUCCESS);
    EXPECT_EQ(filled.now(2), std::vector<double>{expected}) << engine;
  }
}

TEST_F(CudnnExecution, HandlesStreamsAndMemoryAreOfOneDevice) {
  if (cuda_device_count() < 2) {
    GTEST_SKIP() << "needs two GPUs: MILLRACE_EMULATED_GPUS=2";
  }
  std::mt19937_64 engine = test::random_engine();
  Execution run;
  run.c = convolution_of(kCases[0], Result::y, CUDA_R_32F, true);
  const Filled filled(run.c, engine);
  filled.give(run);
  const Stream other = Stream::make({Device::Kind::cuda, 1});
  EXPECT_EQ(cudnnSetStream(run.handle, cuda::native(other)), CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH);
  const Tensor far = empty({4096}, {.device = {Device::Kind::cuda, 1}});
  cudaSetDevice(0);
  run.pointers[0] = far.raw();
  EXPECT_EQ(run.run(), CUDNN_STATUS_EXECUTION_FAILED);
  filled.give(run);
  cudaSetDevice(1);
  EXPECT_EQ(run.run(), CUDNN_STATUS_EXECUTION_FAILED) << "another device is the current one";
  cudaSetDevice(0);
  EXPECT_EQ(run.run(), CUDNN_STATUS_SUCCESS);
}

}  // namespace
}  // namespace millrace::fake_cudnn
