#pragma once

// What a .cu file needs when a C++ compiler reads it: included before its first line (-include). The
// toolkit's headers leave these words alone when they are defined already.
#undef __shared__
// A block runs on one thread; blocks of other streams have their own. By the tag symbols.cpp finds them.
#define __shared__ static thread_local __attribute__((abi_tag("device_shared")))
#define __launch_bounds__(...)

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_runtime.h>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

// A thread's place; set before the thread runs and after each switch to it.
inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};
inline constexpr int warpSize = 32;

namespace millrace::emulator {

/// Runs `thread`, which calls `kernel`, once for each thread of the grid, in stream order.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread);

void block_barrier(const std::source_location& where);
void warp_barrier(unsigned mask, const std::source_location& where);
/// The value of lane `source` of this warp, when all lanes of `mask` are here.
std::uint64_t warp_exchange(unsigned mask, std::uint64_t value, int source,
                            const std::source_location& where);
/// A bit for each lane of `mask` whose predicate holds.
unsigned warp_vote(unsigned mask, bool predicate, const std::source_location& where);
/// This thread's lane.
int lane();

template <typename T>
T exchange(unsigned mask, T value, int source, int width, const std::source_location& where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const int first = lane() / width * width;
  const bool inside = source >= first && source < first + width;  // else a lane gets its own value
  bits = warp_exchange(mask, bits, inside ? source : lane(), where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace millrace::emulator

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelExEmulated(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                                       Arguments&&... arguments) {
  std::tuple<std::decay_t<Parameters>...> kept(std::forward<Arguments>(arguments)...);
  return millrace::emulator::launch(*config, reinterpret_cast<const void*>(kernel),
                                    [kernel, kept] { std::apply(kernel, kept); });
}
#define cudaLaunchKernelEx cudaLaunchKernelExEmulated

// Barriers, shuffles and votes.
using millrace_where = std::source_location;
inline void __syncthreads(const millrace_where& where = millrace_where::current()) {
  millrace::emulator::block_barrier(where);
}
inline void __syncwarp(unsigned mask = 0xffffffff, const millrace_where& where = millrace_where::current()) {
  millrace::emulator::warp_barrier(mask, where);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const millrace_where& where = millrace_where::current()) {
  const int lane = millrace::emulator::lane();
  return millrace::emulator::exchange(mask, value, lane / width * width + source % width, width, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  const millrace_where& where = millrace_where::current()) {
  return millrace::emulator::exchange(mask, value, millrace::emulator::lane() ^ bits, width, where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   const millrace_where& where = millrace_where::current()) {
  const int source = millrace::emulator::lane() + static_cast<int>(distance);
  return millrace::emulator::exchange(mask, value, source, width, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 const millrace_where& where = millrace_where::current()) {
  const int source = millrace::emulator::lane() - static_cast<int>(distance);
  return millrace::emulator::exchange(mask, value, source, width, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const millrace_where& where = millrace_where::current()) {
  return millrace::emulator::warp_vote(mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate, const millrace_where& where = millrace_where::current()) {
  return millrace::emulator::warp_vote(mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, const millrace_where& where = millrace_where::current()) {
  return millrace::emulator::warp_vote(mask, predicate != 0, where) == mask;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// Memory. Atomics are relaxed, as on the device.
template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T atomicAdd(T* to, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "sums of floats by atomics differ from run to run");
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicOr(T* to, std::type_identity_t<T> value) {
  return __atomic_fetch_or(to, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicExch(T* to, std::type_identity_t<T> value) {
  return __atomic_exchange_n(to, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicCAS(T* to, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(to, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
T atomicMax(T* to, std::type_identity_t<T> value) {
  T before = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (before < value &&
         !__atomic_compare_exchange_n(to, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <typename T>
T atomicMin(T* to, std::type_identity_t<T> value) {
  T before = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (before > value &&
         !__atomic_compare_exchange_n(to, &before, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}

// Numbers.
template <typename A, typename B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
auto min(A a, B b) -> std::common_type_t<A, B> { return std::min<std::common_type_t<A, B>>(a, b); }
template <typename A, typename B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
auto max(A a, B b) -> std::common_type_t<A, B> { return std::max<std::common_type_t<A, B>>(a, b); }
using std::isfinite, std::isinf, std::isnan;
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(M_PI * x));
  *cosine = static_cast<float>(std::cos(M_PI * x));
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Never fused with what comes before or behind.
inline float __fadd_rn(float a, float b) { return __builtin_assoc_barrier(a + b); }
inline float __fmul_rn(float a, float b) { return __builtin_assoc_barrier(a * b); }
inline double __dadd_rn(double a, double b) { return __builtin_assoc_barrier(a + b); }
inline double __dmul_rn(double a, double b) { return __builtin_assoc_barrier(a * b); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
inline std::uint64_t __umul64hi(std::uint64_t a, std::uint64_t b) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
