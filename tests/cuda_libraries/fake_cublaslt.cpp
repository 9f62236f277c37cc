#include "fake_cublaslt.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "cublaslt_rules.h"
#include "memory.h"
#include "sums.h"

namespace millrace::fake_cublaslt {
namespace {

constexpr std::uint64_t kWorkspace = 4096;

struct State {
  std::atomic<bool> refuses_biases = false;
  std::atomic<int> heuristics = 0, products = 0;
};
State& state() {
  static State state;
  return state;
}

/// Of the device that was current when it was made.
struct Handle {
  int device = 0;
};

/// What the fake writes into cublasLtMatmulAlgo_t, which callers copy around.
struct Algorithm {
  std::uint64_t problem;                    // hash of what it was chosen for
  std::array<std::uint32_t, 5> alignments;  // that A, B, C, D and the bias must have
  std::uint32_t splits_in_result;
  std::uint64_t workspace;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

template <typename Mine, typename Opaque>
Mine& mine(Opaque* opaque) {
  return *reinterpret_cast<Mine*>(opaque);
}
template <typename Mine, typename Opaque>
cublasStatus_t create(Opaque** made, Mine value) {
  if (made == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *made = reinterpret_cast<Opaque*>(new Mine(value));
  return CUBLAS_STATUS_SUCCESS;
}
template <typename Mine, typename Opaque>
cublasStatus_t destroy(Opaque* made) {
  delete reinterpret_cast<Mine*>(made);
  return CUBLAS_STATUS_SUCCESS;
}

/// "If buf is NULL or sizeInBytes doesn't match the size of the internal storage for the attribute".
template <typename T>
cublasStatus_t take(T& into, const void* from, std::size_t bytes) {
  if (from == nullptr || bytes != sizeof(T)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(&into, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

std::uint64_t hash_of(const Problem& problem) { return fakes::draw(0, problem.text()); }

/// A bias's alignment is that of its address when the algorithm is chosen.
std::uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | kLargestAlignment;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

Algorithm algorithm_for(const Problem& problem, const Preference& preference) {
  Algorithm made{.problem = hash_of(problem), .alignments = {}, .splits_in_result = 0, .workspace = 0};
  std::ranges::transform(preference.alignments, made.alignments.begin(),
                         [](std::uint32_t bytes) { return std::min(bytes, kLargestAlignment); });
  made.alignments[4] = problem.operation.adds_bias() ? alignment_of(problem.operation.bias) : 1;
  constexpr std::uint32_t kInResult =
      CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const bool splits = preference.reduction_schemes != 0 && preference.workspace >= kWorkspace;
  made.splits_in_result = splits && (preference.reduction_schemes & kInResult) != 0 ? 1 : 0;
  made.workspace = splits ? kWorkspace : 0;
  return made;
}

/// By chance, where the fakes are to refuse: the bias in the epilogue, for which our code has another way.
bool is_refused(const Problem& problem) {
  const std::uint64_t seed = fakes::refusing_seed();
  return problem.operation.adds_bias() &&
         (state().refuses_biases || (seed != 0 && fakes::draw(seed, problem.text()) % 2 == 0));
}

double scalar(const void* value, std::int32_t type) {
  return fakes::load(value, 0, static_cast<cudaDataType>(type));
}

/// What is wrong with the addresses, if anything.
cublasStatus_t status_of(const Problem& p, const Algorithm& algorithm, std::span<const fakes::Range> ranges,
                         int device) {
  if (algorithm.problem != hash_of(p)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  for (const fakes::Range& range : ranges) {
    if (range.data == nullptr || !fakes::is_aligned(range.data, range.alignment)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!fakes::is_held(range, device)) {  // the real one would find out on the device
      return CUBLAS_STATUS_EXECUTION_FAILED;
    }
  }
  const fakes::Range& result = ranges.back();
  for (const fakes::Range& range : ranges.first(ranges.size() - 1)) {
    const bool in_place = range.data == result.data && range.name == std::string_view("C") && p.c == p.d;
    if (!in_place && fakes::overlap(range, result)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

void refuse_biases(bool refuse) { state().refuses_biases = refuse; }
Counts counts() { return {state().heuristics, state().products}; }

}  // namespace millrace::fake_cublaslt

using namespace millrace::fake_cublaslt;
namespace fakes = millrace::fakes;

extern "C" {

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
      return "an error of the fake";
  }
}
const char* cublasLtGetStatusName(cublasStatus_t status) { return cublasLtGetStatusString(status); }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  Handle made;
  return cudaGetDevice(&made.device) == cudaSuccess ? create(handle, made) : CUBLAS_STATUS_NOT_INITIALIZED;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy<Handle>(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return create(made, Operation{.compute = compute, .scale = scale});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t made) { return destroy<Operation>(made); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t made, cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
  auto& operation = mine<Operation>(made);
  switch (name) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return take(operation.compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return take(operation.scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return take(operation.pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(operation.transposes_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(operation.transposes_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return take(operation.transposes_c, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(operation.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(operation.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return take(operation.bias_type, value, bytes);
    default:  // what the fake does not know must not pass unseen
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  return create(made, Layout{static_cast<std::uint32_t>(type), rows, columns, leading});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t made) { return destroy<Layout>(made); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t made,
                                                cublasLtMatrixLayoutAttribute_t name, const void* value,
                                                size_t bytes) {
  auto& layout = mine<Layout>(made);
  switch (name) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return take(layout.type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return take(layout.order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return take(layout.rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return take(layout.columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return take(layout.leading, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return take(layout.batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return take(layout.batch_stride, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  return create(made, Preference());
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t made) {
  return destroy<Preference>(made);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t made,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, size_t bytes) {
  auto& preference = mine<Preference>(made);
  switch (name) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return take(preference.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return take(preference.reduction_schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return take(preference.alignments[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return take(preference.alignments[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return take(preference.alignments[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return take(preference.alignments[3], value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  ++state().heuristics;
  const auto needed = {static_cast<const void*>(handle),    static_cast<const void*>(operation),
                       static_cast<const void*>(a),         static_cast<const void*>(b),
                       static_cast<const void*>(c),         static_cast<const void*>(d),
                       static_cast<const void*>(preference)};
  if (std::ranges::find(needed, nullptr) != needed.end() || asked < 1 || results == nullptr ||
      count == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *count = 0;
  const Problem problem{mine<Operation>(operation), mine<Layout>(a), mine<Layout>(b), mine<Layout>(c),
                        mine<Layout>(d)};
  if (const cublasStatus_t status = status_of(problem); status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  results[0] = {};
  if (is_refused(problem)) {  // the real one has two ways to say so
    const bool by_result = fakes::draw(1, problem.text()) % 2 == 0;
    *count = by_result ? 1 : 0;
    results[0].state = CUBLAS_STATUS_NOT_SUPPORTED;
    return by_result ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const Algorithm algorithm = algorithm_for(problem, mine<Preference>(preference));
  *count = 1;
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = algorithm.workspace;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  const auto needed = {static_cast<const void*>(handle),
                       static_cast<const void*>(operation),
                       static_cast<const void*>(a_layout),
                       static_cast<const void*>(b_layout),
                       static_cast<const void*>(c_layout),
                       static_cast<const void*>(d_layout),
                       static_cast<const void*>(stream),
                       alpha,
                       beta};  // of streams, the default one is not there
  if (std::ranges::find(needed, nullptr) != needed.end()) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Problem problem{mine<Operation>(operation), mine<Layout>(a_layout), mine<Layout>(b_layout),
                        mine<Layout>(c_layout), mine<Layout>(d_layout)};
  if (const cublasStatus_t status = status_of(problem); status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  Algorithm algorithm = algorithm_for(problem, {});
  if (algo != nullptr) {
    std::memcpy(&algorithm, algo, sizeof algorithm);
  }
  int current = 0;
  cudaGetDevice(&current);
  const int device = mine<Handle>(handle).device;
  if (current != device || fakes::device_of(stream) != device || workspace_bytes < algorithm.workspace) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto& op = problem.operation;
  std::vector<fakes::Range> ranges = {{"A", a, problem.a.bytes(), algorithm.alignments[0]},
                                      {"B", b, problem.b.bytes(), algorithm.alignments[1]}};
  const double factor = scalar(alpha, op.scale), kept = scalar(beta, op.scale);
  if (kept != 0) {
    ranges.push_back({"C", c, problem.c.bytes(), algorithm.alignments[2]});
  }
  if (op.adds_bias()) {
    const cudaDataType type = op.bias_data_type(problem.d.data_type());
    ranges.push_back({"bias", op.bias, problem.d.rows * fakes::size_of(type), algorithm.alignments[4]});
  }
  if (workspace_bytes > 0) {
    ranges.push_back({"workspace", workspace, workspace_bytes, kWorkspaceAlignment});
  }
  ranges.push_back({"D", d, problem.d.bytes(), algorithm.alignments[3]});
  if (const cublasStatus_t status = status_of(problem, algorithm, ranges, device);
      status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  ++state().products;
  fakes::enqueue(stream, workspace, algorithm.workspace, [=] {
    multiply(problem, {{a, b, c}, d, factor, kept}, algorithm.splits_in_result != 0);
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
