// Makes one mistake on purpose, so that a sanitizer job that no longer sees mistakes fails: plant
// race|overflow|undefined. The race is between two bodies of a oneTBB flow graph, the overflow at the end of
// a tensor: where ours would be.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <limits>
#include <oneapi/tbb/flow_graph.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <string_view>
#include <thread>

#include "tensor/tensor.h"

namespace {

int plant_race() {
  tbb::global_control threads(tbb::global_control::max_allowed_parallelism, 3);
  tbb::task_arena arena(2, 0);
  std::atomic<int> inside{0};
  int shared = 0;
  arena.execute([&] {
    tbb::flow::graph graph;
    tbb::flow::function_node<int, int> body(graph, tbb::flow::unlimited, [&](int i) {
      // Both bodies run at once, on two threads; should there be only one, not for ever.
      inside.fetch_add(1, std::memory_order_relaxed);
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (inside.load(std::memory_order_relaxed) < 2 && std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
      }
      shared += i;  // planted
      return i;
    });
    for (int i = 1; i <= 2; ++i) {
      body.try_put(i);
    }
    graph.wait_for_all();
  });
  return shared;
}

int plant_overflow() {
  const millrace::Tensor tensor = millrace::empty({4});
  const volatile float* data = tensor.data<float>();
  return static_cast<int>(data[4]);  // planted
}

int plant_undefined() {
  volatile int most = std::numeric_limits<int>::max();
  return most + 1;  // planted
}

}  // namespace

int main(int count, char** words) {
  const std::string_view what = count > 1 ? words[1] : "";
  const int result = what == "race"       ? plant_race()
                     : what == "overflow" ? plant_overflow()
                                          : plant_undefined();
  std::printf("planted '%s' went unseen (%d)\n", words[1], result);
}
