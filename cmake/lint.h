#pragma once

// What clang 14 lacks of GCC 12, for scripts/lint alone: the types are enough there.
#define __builtin_assoc_barrier(value) (value)
#define __builtin_cpu_supports(name) 0
#define __builtin_shuffle(first, ...) (first)

#if !__has_builtin(__builtin_source_location)
namespace std {
struct source_location {
  static constexpr source_location current() { return {}; }
  constexpr const char* file_name() const { return ""; }
  constexpr const char* function_name() const { return ""; }
  constexpr unsigned line() const { return 0; }
  constexpr unsigned column() const { return 0; }
};
}  // namespace std
#endif
