#include "tensor/kernels/recording.h"

#include <gtest/gtest.h>
#include <stdexcept>

#include "tensor/kernels/launch.h"
#include "tensor/ops.h"
#include "tensor/ops/random.h"

namespace millrace {
namespace {

Tensor draw(const Shape& shape, std::uint64_t seed) {
  Generator generator(seed);
  return randn(shape, generator);
}

/// What is recorded in most tests: temporaries of many sizes, a view of the input, and a result that stays.
struct Pass {
  Tensor weight = draw({7, 5}, 1);
  Tensor out = zeros({6, 7});
  Tensor count = zeros({});

  void operator()(const Tensor& x) {
    const Tensor hidden = exp(x * 0.5) + x.slice(0, 0, 1).expand({6, 5});
    out.copy_(matmul(hidden, weight.t()) - sum(hidden, {.dims = {1}, .keep_dims = true}));
    count.add_(1);
  }
};

TEST(Recording, RepeatsThePassOnOtherInputs) {
  Pass recorded, plain;
  Recording recording;
  std::vector<Tensor> inputs{draw({6, 5}, 2)};
  ASSERT_TRUE(recording.record(inputs, [&] { recorded(inputs[0]); })) << recording.refusal();
  EXPECT_GT(recording.launches(), 5u);
  plain(inputs[0]);
  EXPECT_TRUE(all_close(recorded.out, plain.out, 0, 0));
  for (std::uint64_t seed = 3; seed < 6; ++seed) {
    // A part of something larger, as a shard of a batch is.
    const Tensor x = draw({3, 6, 5}, seed).select(0, 1);
    inputs = {x};
    recording.replay(inputs);
    plain(x);
    EXPECT_TRUE(all_close(recorded.out, plain.out, 0, 0)) << seed;
  }
  EXPECT_EQ(recorded.count.item(), 4) << "what the pass changes in place goes on";
}

TEST(Recording, SeesWeightsThatChange) {
  Pass recorded, plain;
  Recording recording;
  const std::vector<Tensor> inputs{draw({6, 5}, 2)};
  ASSERT_TRUE(recording.record(inputs, [&] { recorded(inputs[0]); }));
  recorded.weight.mul_(2);
  plain.weight.mul_(2);
  recording.replay(inputs);
  plain(inputs[0]);
  EXPECT_TRUE(all_close(recorded.out, plain.out, 0, 0));
}

TEST(Recording, ItsMemoryIsNobodyElses) {
  Pass recorded, plain;
  Recording recording;
  const std::vector<Tensor> inputs{draw({6, 5}, 2)};
  ASSERT_TRUE(recording.record(inputs, [&] { recorded(inputs[0]); }));
  plain(inputs[0]);
  std::vector<Tensor> others;
  for (std::int64_t size = 1; size < 200; ++size) {
    others.push_back(full({size}, static_cast<double>(size)));
  }
  recorded.out.zero_();
  recording.replay(inputs);
  EXPECT_TRUE(all_close(recorded.out, plain.out, 0, 0));
  for (const Tensor& other : others) {
    EXPECT_TRUE(all_close(other, full(other.shape(), static_cast<double>(other.numel())), 0, 0));
  }
}

TEST(Recording, ItsMemoryGoesBack) {
  (zeros({1}) + 1).mul_(2);  // a thread's first operations keep a little of their own
  const std::size_t before = cpu_memory_use().live;
  {
    Recording recording;
    ASSERT_TRUE(recording.record({}, [] { (zeros({1 << 20}) + 1).mul_(2); })) << recording.refusal();
    EXPECT_GE(cpu_memory_use().live, before + (8u << 20));
  }
  EXPECT_EQ(cpu_memory_use().live, before);
}

TEST(Recording, APassThatIsRefusedTakesNoMoreMemoryThanEver) {
  constexpr std::size_t kBytes = std::size_t{32} << 20;
  std::size_t before = 0, after = 0;
  const auto pass = [&] {
    before = cpu_memory_use().live;
    for (int i = 0; i < 8; ++i) {
      zeros({kBytes / sizeof(float)});
    }
    after = cpu_memory_use().live;
  };
  Recording recording;
  EXPECT_FALSE(recording.record({}, pass));
  EXPECT_LE(after, before + kBytes);
}

TEST(Recording, RefusesWhatItCannotRepeat) {
  Recording recording;
  Tensor kept;
  const Tensor x = draw({4}, 1);
  const auto refusal = [&](const std::function<void()>& pass) {
    EXPECT_FALSE(recording.record({}, pass));
    EXPECT_EQ(recording.launches(), 0u);
    return recording.refusal();
  };
  EXPECT_EQ(refusal([&] { sum(x).item(); }), "it reads elements on the host");
  EXPECT_EQ(refusal([&] { x.at({2}); }), "it reads elements on the host");
  EXPECT_EQ(refusal([&] { all_close(x, x, 0, 0); }), "it compares elements on the host");
  EXPECT_EQ(refusal([&] { (x + 1).to_string(); }), "it prints a tensor");
  EXPECT_EQ(refusal([&] { tensor({1, 2}).add_(1); }), "it makes a tensor of numbers on the host");
  EXPECT_EQ(refusal([&] { draw({3}, 2); }), "it draws random numbers");
  Generator generator(3);
  EXPECT_EQ(refusal([&] { rand({3}, generator); }), "it draws random numbers");
  EXPECT_EQ(refusal([&] { (x + 1).add_(generator.uniform()); }), "it draws random numbers");
  generator.normal();  // leaves a second one for the pass
  EXPECT_EQ(refusal([&] { (x + 1).add_(generator.normal()); }), "it draws random numbers");
  EXPECT_EQ(refusal([&] { kept = x + 1; }), "it left memory behind that is still in use");
  EXPECT_EQ(refusal([&] { zeros({20 << 20}); }), "it takes more than 16 MiB");
  EXPECT_TRUE(recording.record({}, [&] { x + 1; })) << recording.refusal();
}

/// Something old that the pass lets go of must not hide something new that it keeps.
TEST(Recording, RefusesMemoryThatTakesTheLastOnesPlace) {
  Recording recording;
  Tensor last = draw({4}, 1);
  const Tensor x = draw({4}, 1);
  EXPECT_FALSE(recording.record({}, [&] { last = x + 1; }));
}

TEST(Recording, APassThatThrowsLeavesNothingBehind) {
  Recording recording;
  EXPECT_THROW(recording.record({}, [] { throw std::domain_error("no"); }), std::domain_error);
  EXPECT_EQ(launch_hook, nullptr);
  EXPECT_EQ(cpu::exchange_own_blocks(nullptr), nullptr);
  EXPECT_EQ(recording.launches(), 0u);
}

TEST(Recording, TheLaunchHookSeesReplays) {
  Recording recording;
  const Tensor x = draw({4}, 1);
  ASSERT_TRUE(recording.record({}, [&] { matmul(x.view({1, 4}), x.view({4, 1})); }));
  std::vector<std::string> seen;
  const LaunchHook hook = [&](const KernelLaunch& launch) {
    seen.emplace_back(launch.kernel);
    for (const Tensor* tensor : launch.tensors) {
      seen.push_back(tensor->shape().to_string());
    }
    launch.run();
  };
  launch_hook = &hook;
  recording.replay({});
  launch_hook = nullptr;
  EXPECT_EQ(seen, (std::vector<std::string>{"matmul", "[1, 4]", "[4, 1]", "[]", "[1, 1]"}));
}

}  // namespace
}  // namespace millrace
