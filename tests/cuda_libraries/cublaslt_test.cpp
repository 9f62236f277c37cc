// The fake cuBLASLt against what cuBLASLt's documentation says.
#include <algorithm>
#include <cublasLt.h>
#include <functional>
#include <future>
#include <gmock/gmock.h>
#include <limits>
#include <random>

#include "cublaslt_rules.h"
#include "library_fixtures.h"
#include "sums.h"
#include "tensor/cuda/runtime/runtime.h"

namespace millrace::fake_cublaslt {
namespace {

using test::kGpu;

constexpr cudaDataType kFloating[] = {CUDA_R_16F, CUDA_R_16BF, CUDA_R_32F, CUDA_R_64F};
constexpr cublasComputeType_t kComputes[] = {
    CUBLAS_COMPUTE_16F,           CUBLAS_COMPUTE_16F_PEDANTIC, CUBLAS_COMPUTE_32F,
    CUBLAS_COMPUTE_32F_PEDANTIC,  CUBLAS_COMPUTE_32F_FAST_16F, CUBLAS_COMPUTE_32F_FAST_16BF,
    CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_64F,          CUBLAS_COMPUTE_64F_PEDANTIC,
    CUBLAS_COMPUTE_32I,           CUBLAS_COMPUTE_32I_PEDANTIC};

/// Bytes on the GPU, which are numbers of a type.
Tensor on_gpu(const std::vector<double>& numbers, cudaDataType type) {
  const std::size_t bytes = fakes::size_of(type) * numbers.size();
  Tensor host = empty({static_cast<std::int64_t>(bytes)}, {.dtype = DType::u8});
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    fakes::store(host.raw(), static_cast<std::int64_t>(i), type, numbers[i]);
  }
  return host.to(kGpu);
}

std::vector<double> numbers_of(const Tensor& gpu, cudaDataType type) {
  const Tensor host = gpu.to(kCpu);
  std::vector<double> made;
  for (std::size_t i = 0; i < static_cast<std::size_t>(host.numel()) / fakes::size_of(type); ++i) {
    made.push_back(fakes::load(host.raw(), static_cast<std::int64_t>(i), type));
  }
  return made;
}

/// One product, described as by the caller of the C functions: fields are changed by tests.
struct Call {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F;
  Layout a{CUDA_R_32F, 3, 4, 3}, b{CUDA_R_32F, 4, 5, 4}, c{CUDA_R_32F, 3, 5, 3}, d{CUDA_R_32F, 3, 5, 3};
  std::int32_t transposes_a = CUBLAS_OP_N, transposes_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  std::int32_t bias_type = -1;
  Preference preference{};
  double alpha = 1, beta = 0;
  std::int64_t offset_of_workspace = 0, missing_workspace = 0;
  cudaStream_t stream = nullptr;
  Stream own = Stream::make(kGpu);

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  std::array<cublasLtMatrixLayout_t, 4> layouts{};
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;

  Call() { cublasLtCreate(&handle); }
  ~Call() { cublasLtDestroy(handle); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void types(const TypeRow& row) {
    compute = row.compute;
    scale = row.scale;
    a.type = b.type = row.factors;
    c.type = d.type = row.result;
    bias_type = row.bias;
  }

  template <typename T>
  void set(cublasLtMatmulDescAttributes_t name, const T& value) const {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
  }

  /// Makes all objects anew, asks for an algorithm, and then does `f`.
  cublasStatus_t with_objects(const std::function<cublasStatus_t(cublasStatus_t)>& f) {
    cublasLtMatmulDescCreate(&operation, compute, scale);
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposes_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, transposes_b);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    const std::array<const Layout*, 4> given = {&a, &b, &c, &d};
    for (std::size_t i = 0; i < given.size(); ++i) {
      const Layout& one = *given[i];
      cublasLtMatrixLayoutCreate(&layouts[i], one.data_type(), one.rows, one.columns, one.leading);
      const auto put = [&](cublasLtMatrixLayoutAttribute_t name, const auto& value) {
        EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(layouts[i], name, &value, sizeof value),
                  CUBLAS_STATUS_SUCCESS);
      };
      put(CUBLASLT_MATRIX_LAYOUT_ORDER, one.order);
      put(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, one.batches);
      put(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, one.batch_stride);
    }
    cublasLtMatmulPreference_t wanted = nullptr;
    cublasLtMatmulPreferenceCreate(&wanted);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(wanted, name, &value, sizeof value),
                CUBLAS_STATUS_SUCCESS);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, preference.workspace);
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, preference.reduction_schemes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, preference.alignments[0]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, preference.alignments[1]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, preference.alignments[2]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, preference.alignments[3]);
    const cublasStatus_t status = f(cublasLtMatmulAlgoGetHeuristic(
        handle, operation, layouts[0], layouts[1], layouts[2], layouts[3], wanted, 1, &found, &count));
    cublasLtMatmulPreferenceDestroy(wanted);
    for (cublasLtMatrixLayout_t layout : layouts) {
      cublasLtMatrixLayoutDestroy(layout);
    }
    cublasLtMatmulDescDestroy(operation);
    return status;
  }

  cublasStatus_t ask() {
    return with_objects([](cublasStatus_t status) { return status; });
  }

  /// Asks, then multiplies. The bias may be another one by then.
  cublasStatus_t run(const void* a_data, const void* b_data, const void* c_data, void* d_data,
                     const void* bias_then = nullptr) {
    return with_objects([&](cublasStatus_t status) {
      if (status != CUBLAS_STATUS_SUCCESS) {
        ADD_FAILURE() << "no algorithm: " << cublasLtGetStatusString(status);
        return status;
      }
      if (bias_then != nullptr) {
        set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_then);
      }
      const auto size = static_cast<std::int64_t>(found.workspaceSize) - missing_workspace;
      const StreamGuard guard(own);
      const Tensor workspace = empty({size + offset_of_workspace}, {.dtype = DType::u8, .device = kGpu});
      std::array<double, 2> scalars{};
      fakes::store(scalars.data(), 0, scale, alpha);
      fakes::store(&scalars[1], 0, scale, beta);
      const cudaStream_t to = stream != nullptr ? stream : cuda::native(own);
      return cublasLtMatmul(handle, operation, scalars.data(), a_data, layouts[0], b_data, layouts[1],
                            &scalars[1], c_data, layouts[2], d_data, layouts[3], &found.algo,
                            workspace.raw() + offset_of_workspace, static_cast<std::size_t>(size), to);
    });
  }
};

std::vector<double> draw(std::size_t count, std::mt19937_64& engine) {
  std::uniform_int_distribution<int> eighths(-16, 16);
  std::vector<double> made(count);
  std::ranges::generate(made, [&] { return eighths(engine) / 8.0; });
  return made;
}

using test::CublasLt;

/// Memory of its own for all operands of a call, with numbers in eighths, and the result in a plain loop.
struct Filled {
  Filled(const Call& call, std::mt19937_64& engine)
      : call(call),
        a(draw(elements(call.a), engine)),
        b(draw(elements(call.b), engine)),
        c(draw(elements(call.c), engine)),
        bias(draw(call.d.rows, engine)),
        a_data(on_gpu(a, call.a.data_type())),
        b_data(on_gpu(b, call.b.data_type())),
        c_data(on_gpu(c, call.c.data_type())),
        d_data(on_gpu(std::vector<double>(elements(call.d), 7), call.d.data_type())) {
    current_stream(kGpu).synchronize();
  }

  static std::size_t elements(const Layout& layout) {
    return static_cast<std::size_t>(layout.elements() + (layout.batches - 1) * layout.batch_stride);
  }
  /// What the result's memory holds then; gaps stay 7.
  std::vector<double> expected() const {
    std::vector<double> made(elements(call.d), 7);
    const auto at = [](const Layout& layout, bool transposed, std::int64_t i, std::int64_t j, int batch) {
      return static_cast<std::size_t>((transposed ? layout.place(j, i) : layout.place(i, j)) +
                                      batch * layout.batch_stride);
    };
    const bool ta = call.transposes_a != CUBLAS_OP_N, tb = call.transposes_b != CUBLAS_OP_N;
    const auto k = static_cast<std::int64_t>(ta ? call.a.rows : call.a.columns);
    for (int batch = 0; batch < call.d.batches; ++batch) {
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(call.d.rows); ++i) {
        for (std::int64_t j = 0; j < static_cast<std::int64_t>(call.d.columns); ++j) {
          double sum = 0;
          for (std::int64_t t = 0; t < k; ++t) {
            sum += a[at(call.a, ta, i, t, batch)] * b[at(call.b, tb, t, j, batch)];
          }
          sum = call.alpha * sum + (call.beta == 0 ? 0 : call.beta * c[at(call.c, false, i, j, batch)]);
          if ((call.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
            sum += bias[static_cast<std::size_t>(i)];
          }
          if ((call.epilogue & CUBLASLT_EPILOGUE_RELU) != 0) {
            sum = std::max(sum, 0.0);
          }
          double rounded = 0;
          fakes::store(&rounded, 0, call.d.data_type(), sum);
          made[at(call.d, false, i, j, batch)] = fakes::load(&rounded, 0, call.d.data_type());
        }
      }
    }
    return made;
  }
  std::vector<double> result() const {
    call.own.synchronize();
    return numbers_of(d_data, call.d.data_type());
  }

  const Call& call;
  std::vector<double> a, b, c, bias;
  Tensor a_data, b_data, c_data, d_data;
};

void expect_product(Call& call, std::mt19937_64& engine, const std::string& what) {
  const Filled filled(call, engine);
  const auto bias_type = static_cast<cudaDataType>(call.bias_type == -1 ? call.d.type : call.bias_type);
  const Tensor bias = on_gpu(filled.bias, bias_type);
  call.bias = bias.raw();
  current_stream(kGpu).synchronize();
  ASSERT_EQ(call.run(filled.a_data.raw(), filled.b_data.raw(), filled.c_data.raw(), filled.d_data.raw()),
            CUBLAS_STATUS_SUCCESS)
      << what;
  EXPECT_EQ(filled.result(), filled.expected()) << what << ", seed " << test::seed();
}

TEST_F(CublasLt, EachRowOfTypesIsAcceptedAndAllElseRefused) {
  Call call;
  int accepted = 0;
  for (const auto compute : kComputes) {
    for (const cudaDataType scale : kFloating) {
      for (const cudaDataType a : kFloating) {
        for (const cudaDataType b : kFloating) {
          for (const cudaDataType c : kFloating) {
            for (const cudaDataType d : kFloating) {
              call.compute = compute, call.scale = scale, call.a.type = a, call.b.type = b, call.c.type = c,
              call.d.type = d;
              const bool documented = std::ranges::any_of(kTypes, [&](const TypeRow& row) {
                return row.compute == compute && row.scale == scale && a == row.factors && b == row.factors &&
                       c == row.result && d == row.result;
              });
              const cublasStatus_t status = call.ask();
              accepted += status == CUBLAS_STATUS_SUCCESS ? 1 : 0;
              ASSERT_EQ(status, documented ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED)
                  << compute << " " << scale << " " << a << " " << b << " " << c << " " << d;
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(accepted, static_cast<int>(std::size(kTypes)));
}

TEST_F(CublasLt, EachRowOfTypesComputesAndHasOneTypeOfBias) {
  std::mt19937_64 engine = test::random_engine();
  for (const TypeRow& row : kTypes) {
    for (const std::uint32_t epilogue : kEpilogues) {
      Call call;
      call.types(row);
      call.epilogue = epilogue;
      expect_product(call, engine, "compute " + std::to_string(row.compute));
      for (const cudaDataType bias : kFloating) {
        call.bias_type = bias;
        const bool fits = bias == row.bias || (epilogue & CUBLASLT_EPILOGUE_BIAS) == 0;
        EXPECT_EQ(call.ask(), fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED);
      }
    }
  }
}

TEST_F(CublasLt, EpiloguesThatStandInNoRowAreRefused) {
  Call call;
  for (std::uint32_t epilogue = 0; epilogue < 512; ++epilogue) {
    call.epilogue = epilogue;
    const bool known =
        std::ranges::find(kEpilogues, static_cast<cublasLtEpilogue_t>(epilogue)) != std::end(kEpilogues);
    EXPECT_EQ(call.ask(), known ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED) << epilogue;
  }
}

/// Layouts that documentation allows: transposed, by rows, with gaps, one matrix for all batches.
TEST_F(CublasLt, LayoutsAreReadAsTheyAreWritten) {
  std::mt19937_64 engine = test::random_engine();
  for (int choice = 0; choice < 256; ++choice) {
    Call call;
    const auto bit = [&](int i) { return (choice >> i & 1) != 0; };
    const int batches = bit(0) ? 3 : 1, gap = bit(1) ? 2 : 0;
    call.transposes_a = bit(2) ? CUBLAS_OP_T : CUBLAS_OP_N;
    call.transposes_b = bit(3) ? CUBLAS_OP_T : CUBLAS_OP_N;
    call.alpha = bit(4) ? -0.5 : 1;
    call.beta = bit(5) ? 2 : 0;
    const auto layout = [&](std::uint64_t rows, std::uint64_t columns, bool transposed, bool by_rows,
                            bool broadcast) {
      if (transposed) {
        std::swap(rows, columns);
      }
      Layout made{CUDA_R_32F, rows, columns, static_cast<std::int64_t>(by_rows ? columns : rows) + gap};
      made.order = by_rows ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL;
      made.batches = batches;
      made.batch_stride = broadcast ? 0 : made.elements() + gap;
      return made;
    };
    call.a = layout(3, 4, bit(2), bit(6), bit(7));
    call.b = layout(4, 5, bit(3), bit(7), false);
    call.c = layout(3, 5, false, bit(6), bit(7));
    call.d = layout(3, 5, false, bit(7), false);
    expect_product(call, engine, "choice " + std::to_string(choice));
  }
}

struct BadLayout {
  const char* name;
  void (*spoil)(Call&);
};
const BadLayout kBadLayouts[] = {
    {"a leading dimension below the rows", [](Call& call) { call.a.leading = 2; }},
    {"one below the columns, by rows",
     [](Call& call) {
       call.b.order = CUBLASLT_ORDER_ROW;
       call.b.leading = 4;
     }},
    {"no rows", [](Call& call) { call.a.rows = 0; }},
    {"no columns", [](Call& call) { call.d.columns = call.c.columns = call.b.columns = 0; }},
    {"another inner size", [](Call& call) { call.b.rows = call.b.leading = 6; }},
    {"another m", [](Call& call) { call.d.rows = call.d.leading = call.c.rows = call.c.leading = 4; }},
    {"another n", [](Call& call) { call.d.columns = call.c.columns = 4; }},
    {"C of another size than D", [](Call& call) { call.c.columns = 4; }},
    {"a transposition that does not fit", [](Call& call) { call.transposes_a = CUBLAS_OP_T; }},
    {"an operation that is none", [](Call& call) { call.transposes_b = 7; }},
    {"batches of A alone", [](Call& call) { call.a.batches = 2; }},
    {"no batch", [](Call& call) { call.a.batches = call.b.batches = call.c.batches = call.d.batches = 0; }},
    {"batches of D over each other",
     [](Call& call) {
       call.a.batches = call.b.batches = call.c.batches = call.d.batches = 2;
       call.a.batch_stride = call.b.batch_stride = 64;
       call.c.batch_stride = call.d.batch_stride = 14;
     }},
};

TEST_F(CublasLt, LayoutsThatContradictThemselvesAreInvalid) {
  EXPECT_EQ(Call().ask(), CUBLAS_STATUS_SUCCESS);
  for (const BadLayout& row : kBadLayouts) {
    Call call;
    row.spoil(call);
    EXPECT_EQ(call.ask(), CUBLAS_STATUS_INVALID_VALUE) << row.name;
  }
  Call tiled;
  tiled.a.order = CUBLASLT_ORDER_COL32;
  tiled.a.leading = 256;
  EXPECT_EQ(tiled.ask(), CUBLAS_STATUS_NOT_SUPPORTED);
}

/// By what was preferred, and by the bias's address when the algorithm was asked for.
TEST_F(CublasLt, AddressesAreAsAlignedAsWasPromised) {
  const Tensor room = empty({4096}, {.dtype = DType::u8, .device = kGpu});
  for (int operand = 0; operand < 5; ++operand) {
    for (const std::uint32_t promised : {4u, 8u, 16u, 32u}) {
      for (const std::uint32_t given : {4u, 8u, 16u, 32u}) {
        Call call;
        call.beta = 1;
        call.epilogue = CUBLASLT_EPILOGUE_BIAS;
        std::array<std::byte*, 5> at{};
        for (std::size_t i = 0; i < at.size(); ++i) {
          at[i] = room.raw() + 512 * i;
        }
        call.bias = at[4] + (operand == 4 ? promised : 0);
        if (operand < 4) {
          call.preference.alignments.at(static_cast<std::size_t>(operand)) = promised;
        }
        at.at(static_cast<std::size_t>(operand)) += given;
        const bool fits = given >= std::min(promised, 16u);
        EXPECT_EQ(call.run(at[0], at[1], at[2], at[3], at[4]),
                  fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE)
            << "operand " << operand << " promised " << promised << " given " << given;
        call.own.synchronize();
      }
    }
  }
}

TEST_F(CublasLt, TheWorkspaceIsAsLargeAndAlignedAsItMustBe) {
  std::mt19937_64 engine = test::random_engine();
  Call call;
  EXPECT_EQ(call.ask(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(call.found.workspaceSize, 0u) << "none was allowed";
  call.preference.workspace = 32 << 20;
  const Filled filled(call, engine);
  const auto run = [&] {
    return call.run(filled.a_data.raw(), filled.b_data.raw(), nullptr, filled.d_data.raw());
  };
  EXPECT_EQ(run(), CUBLAS_STATUS_SUCCESS);
  EXPECT_GT(call.found.workspaceSize, 0u);
  call.missing_workspace = 1;
  EXPECT_EQ(run(), CUBLAS_STATUS_INVALID_VALUE);
  call.missing_workspace = 0;
  for (const std::int64_t offset : {16, 128, 256}) {
    call.offset_of_workspace = offset;
    EXPECT_EQ(run(), offset < 256 ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS) << offset;
  }
  call.own.synchronize();
}

TEST_F(CublasLt, MemoryIsTheDevicesAndLargeEnough) {
  std::mt19937_64 engine = test::random_engine();
  Call call;
  const Filled filled(call, engine);
  std::vector<float> host(64);
  std::array<const void*, 2> from = {filled.a_data.raw(), filled.b_data.raw()};
  EXPECT_EQ(call.run(host.data(), from[1], nullptr, filled.d_data.raw()), CUBLAS_STATUS_EXECUTION_FAILED);
  EXPECT_EQ(call.run(from[0], from[1], nullptr, host.data()), CUBLAS_STATUS_EXECUTION_FAILED);
  EXPECT_EQ(call.run(from[0], nullptr, nullptr, filled.d_data.raw()), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(call.run(from[0], from[1], nullptr, filled.a_data.raw()), CUBLAS_STATUS_EXECUTION_FAILED)
      << "A's memory is smaller than D";
  call.b.leading = 5;  // its last column ends beyond its memory
  EXPECT_EQ(call.run(from[0], from[1], nullptr, filled.d_data.raw()), CUBLAS_STATUS_EXECUTION_FAILED);
}

TEST_F(CublasLt, TheResultMayLieOverCAlone) {
  std::mt19937_64 engine = test::random_engine();
  Call call;
  call.beta = 1;
  call.a.columns = call.b.rows = 5;
  call.b.leading = 5;
  const Filled filled(call, engine);
  EXPECT_EQ(call.run(filled.a_data.raw(), filled.b_data.raw(), filled.c_data.raw(), filled.a_data.raw()),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(call.run(filled.a_data.raw(), filled.b_data.raw(), filled.c_data.raw(), filled.c_data.raw()),
            CUBLAS_STATUS_SUCCESS);
  call.own.synchronize();
  EXPECT_EQ(numbers_of(filled.c_data, CUDA_R_32F), filled.expected());
}

TEST_F(CublasLt, WithoutBetaCIsNotRead) {
  std::mt19937_64 engine = test::random_engine();
  Call call;
  Filled filled(call, engine);
  filled.c_data = on_gpu(std::vector<double>(15, std::numeric_limits<double>::quiet_NaN()), CUDA_R_32F);
  EXPECT_EQ(call.run(filled.a_data.raw(), filled.b_data.raw(), filled.c_data.raw(), filled.d_data.raw()),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(filled.result(), filled.expected());
}

/// The product is enqueued: it reads what its stream's earlier work wrote.
TEST_F(CublasLt, ProductsWaitForTheirStream) {
  std::mt19937_64 engine = test::random_engine();
  Call call;
  Filled filled(call, engine);
  const std::vector<double> expected = filled.expected();
  std::promise<void> open;
  std::future<void> opened = open.get_future();
  cudaLaunchHostFunc(
      cuda::native(call.own), [](void* data) { static_cast<std::future<void>*>(data)->wait(); }, &opened);
  EXPECT_EQ(call.run(filled.a_data.raw(), filled.b_data.raw(), nullptr, filled.d_data.raw()),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(numbers_of(filled.d_data, CUDA_R_32F), std::vector<double>(15, 7)) << "before its turn";
  open.set_value();
  EXPECT_EQ(filled.result(), expected);
}

TEST_F(CublasLt, FastArithmeticKeepsFewerBitsOfFactors) {
  const double x = 1 + 0x1p-9 + 0x1p-12;  // a TF32 number and a bit that it does not hold
  const std::map<cublasComputeType_t, double> kept = {{CUBLAS_COMPUTE_32F, x},
                                                      {CUBLAS_COMPUTE_32F_FAST_TF32, 1 + 0x1p-9},
                                                      {CUBLAS_COMPUTE_32F_FAST_16F, 1 + 0x1p-9},
                                                      {CUBLAS_COMPUTE_32F_FAST_16BF, 1}};
  for (const auto& [compute, expected] : kept) {
    Call call;
    call.compute = compute;
    call.a = call.b = call.c = call.d = Layout{CUDA_R_32F, 1, 1, 1};
    const Tensor a = on_gpu({x}, CUDA_R_32F), b = on_gpu({1}, CUDA_R_32F), d = on_gpu({0}, CUDA_R_32F);
    current_stream(kGpu).synchronize();
    EXPECT_EQ(call.run(a.raw(), b.raw(), nullptr, d.raw()), CUBLAS_STATUS_SUCCESS);
    call.own.synchronize();
    EXPECT_EQ(numbers_of(d, CUDA_R_32F), std::vector<double>{expected}) << compute;
  }
}

/// Who allows it gets the rounding of half types in the middle of a sum.
TEST_F(CublasLt, SplitSumsAreRoundedWhereTheSchemeAllowsIt) {
  for (const std::uint32_t schemes : {2u, 4u, 7u}) {
    Call call;
    call.types({CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF});
    call.preference.workspace = 1 << 20;
    call.preference.reduction_schemes = schemes;
    call.a = call.c = call.d = Layout{CUDA_R_16BF, 1, 1, 1};
    call.a.columns = 4;
    call.b = Layout{CUDA_R_16BF, 4, 1, 4};
    const Tensor a = on_gpu({256, 1, 1, 0}, CUDA_R_16BF), b = on_gpu({1, 1, 1, 1}, CUDA_R_16BF),
                 d = on_gpu({0}, CUDA_R_16BF);
    current_stream(kGpu).synchronize();
    EXPECT_EQ(call.run(a.raw(), b.raw(), nullptr, d.raw()), CUBLAS_STATUS_SUCCESS);
    call.own.synchronize();
    EXPECT_EQ(numbers_of(d, CUDA_R_16BF).at(0), schemes == 2 ? 258 : 256) << schemes;
  }
}

TEST_F(CublasLt, WhatItDoesNotKnowIsAnError) {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t layout = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 1, 1, 1);
  cublasLtMatmulPreferenceCreate(&preference);
  const std::int64_t value = 0;
  EXPECT_EQ(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &value, 4),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET, &value, 8),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_IMPL_MASK, &value, 8),
            CUBLAS_STATUS_INVALID_VALUE);
  for (const std::size_t bytes : {0, 1, 2, 8}) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &value, bytes),
              CUBLAS_STATUS_INVALID_VALUE);
  }
  EXPECT_EQ(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, nullptr, 4),
            CUBLAS_STATUS_INVALID_VALUE);
  cublasLtMatmulDescDestroy(operation);
  cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulPreferenceDestroy(preference);
}

TEST_F(CublasLt, HandlesStreamsAndMemoryAreOfOneDevice) {
  if (cuda_device_count() < 2) {
    GTEST_SKIP() << "needs two GPUs: MILLRACE_EMULATED_GPUS=2";
  }
  std::mt19937_64 engine = test::random_engine();
  Call call;
  const Filled filled(call, engine);
  const Tensor other = empty({1}, {.device = {Device::Kind::cuda, 1}});
  call.stream = cuda::stream_of(other);  // makes device 1 the current one
  EXPECT_EQ(call.run(filled.a_data.raw(), filled.b_data.raw(), nullptr, filled.d_data.raw()),
            CUBLAS_STATUS_INVALID_VALUE);
  call.stream = nullptr;
  cudaSetDevice(0);
  EXPECT_EQ(call.run(other.raw(), filled.b_data.raw(), nullptr, filled.d_data.raw()),
            CUBLAS_STATUS_EXECUTION_FAILED);
}

}  // namespace
}  // namespace millrace::fake_cublaslt
