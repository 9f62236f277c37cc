#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "runtime_state.h"

namespace millrace::fakes {

int device_of(cudaStream_t stream) { return stream->device(); }

bool is_held(const Range& range, int device) {
  return emulator::device_of(range.data) == device &&
         emulator::state().devices[static_cast<std::size_t>(device)]->arena.holds(range.data, range.bytes);
}

void enqueue(cudaStream_t stream, void* workspace, std::size_t bytes, std::function<void()> work) {
  stream->push([=, work = std::move(work)] {
    constexpr int kMark = 0x5a;
    auto* const marks = static_cast<unsigned char*>(workspace);
    if (bytes > 0) {
      std::memset(workspace, kMark, bytes);
    }
    work();
    if (std::any_of(marks, marks + bytes, [](unsigned char mark) { return mark != kMark; })) {
      emulator::die("somebody wrote to the workspace of a product or convolution while it ran");
    }
  });
}

std::uint64_t draw(std::uint64_t seed, const std::string& about) {
  std::uint64_t hash = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
  for (const char letter : about) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  }
  hash = (hash ^ (hash >> 31)) * 0xbf58476d1ce4e5b9u;
  return hash ^ (hash >> 29);
}

std::uint64_t& refusing_seed() {
  static std::uint64_t seed = [] {
    const char* text = std::getenv("MILLRACE_REFUSE_LIBRARIES");
    const std::uint64_t given = text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
    if (given != 0) {
      std::fprintf(stderr, "cuda libraries: some algorithms and engines are refused, seed %llu\n",
                   static_cast<unsigned long long>(given));
    }
    return given;
  }();
  return seed;
}

}  // namespace millrace::fakes
