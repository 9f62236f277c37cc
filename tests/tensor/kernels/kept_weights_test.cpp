#include "tensor/kept_weights.h"

#include "support.h"
#include "tensor/kernels/conv.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/recording.h"
#include "tensor/ops.h"

namespace millrace {
namespace {

constexpr std::int64_t kChannels = 64;  // in and out: what is turned round has the same layout
const Shape kShape{kChannels, kChannels, 3, 3};

/// A parameter in a flat buffer, and a convolution with it.
struct KeptWeightsTest : testing::TestWithParam<DType> {
  Draw draw{4};
  Tensor flat = draw.tensor({8 + kShape.numel()}, {});
  Tensor weight = flat.narrow(0, 8, kShape.numel()).view(kShape).with_own_version();
  Tensor images =
      draw.tensor({6, kChannels, 8, 8}, {.dtype = GetParam(), .format = MemoryFormat::channels_last});
  Tensor out = empty_like(images), grad_x = empty_like(images);
  KeptWeights kept;

  void run(const Tensor& with, const Tensor& x) {
    MILLRACE_LAUNCH(kCpu, conv2d_forward, x, with, Tensor(), Conv2dOptions{.padding = 1}, out);
    MILLRACE_LAUNCH(kCpu, conv2d_backward_data, x, with, Conv2dOptions{.padding = 1}, grad_x);
  }
  std::vector<double> results() const {
    std::vector<double> all = values(out);
    const std::vector<double> more = values(grad_x);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  /// What comes out where weights are kept.
  std::vector<double> with_kept(const Tensor& with) {
    const KeptWeights::Use use(kept);
    run(with, images);
    return results();
  }
  std::vector<double> without(const Tensor& with) {
    run(with, images);
    return results();
  }
  void write_in_silence(double value) { weight.data<float>()[70] = static_cast<float>(value); }
};

TEST_P(KeptWeightsTest, ArePreparedOnce) {
  const std::vector<double> expected = without(weight);
  EXPECT_EQ(with_kept(weight), expected);
  EXPECT_EQ(kept.size(), 2u) << "for the result and for the images' gradient";
  write_in_silence(50);
  EXPECT_EQ(with_kept(weight), expected) << "prepared again without a change that was counted";
  EXPECT_NE(without(weight), expected) << "outside of Use nothing is kept";
  kept.clear();
  EXPECT_EQ(with_kept(weight), without(weight));
  write_in_silence(40);
  weight.storage()->bump_version();
  EXPECT_EQ(with_kept(weight), without(weight));
  EXPECT_EQ(kept.size(), 2u);
}

TEST_P(KeptWeightsTest, FollowEveryChange) {
  const Tensor other = draw.tensor(kShape, {});
  const std::vector<std::function<void()>> changes = {
      [&] { weight.mul_(2); },
      [&] { weight.copy_(other); },
      [&] {
        weight.set({3, 4, 1, 1}, 9);
      },
      [&] { weight.select(0, 5).zero_(); },
      [&] { weight.add_(other, 0.5); },
      [&] { clamp(weight, -0.5, 0.5, weight); },
      [&] { flat.mul_(3); },  // as a broadcast of all parameters does
      [&] { flat.narrow(0, 8, 100).zero_(); },
      [&] {
        write_in_silence(20);
        weight.storage()->bump_version();
      }};
  std::vector<double> before = with_kept(weight);
  for (std::size_t i = 0; i < changes.size(); ++i) {
    changes[i]();
    const std::vector<double> after = with_kept(weight);
    EXPECT_NE(after, before) << i;
    EXPECT_EQ(after, without(weight)) << i;
    before = after;
  }
}

TEST_P(KeptWeightsTest, StoragesThatComeAndGoMayHaveOneAddress) {
  for (int i = 0; i < 5; ++i) {
    Tensor next = draw.tensor({kShape.numel()}, {});
    const Tensor own = next.view(kShape).with_own_version();
    EXPECT_EQ(with_kept(own), without(own)) << i;
  }
  EXPECT_EQ(kept.size(), 2u) << "what is gone is not held";
}

TEST_P(KeptWeightsTest, TellViewsOfOneStorageApart) {
  const Tensor half = weight.narrow(0, 0, kChannels / 2),
               other = weight.narrow(0, kChannels / 2, kChannels / 2);
  out = empty({6, kChannels / 2, 8, 8}, {.dtype = GetParam(), .format = MemoryFormat::channels_last});
  const auto forward = [&](const Tensor& with) {
    MILLRACE_LAUNCH(kCpu, conv2d_forward, images, with, Tensor(), Conv2dOptions{.padding = 1}, out);
    return values(out);
  };
  const std::vector<double> expected = forward(half), of_other = forward(other);
  const KeptWeights::Use use(kept);
  EXPECT_EQ(forward(half), expected);
  EXPECT_EQ(forward(other), of_other);
  EXPECT_EQ(forward(half), expected);
}

TEST_P(KeptWeightsTest, OthersAreNotKept) {
  const Tensor plain = weight.clone();
  with_kept(plain);
  plain.data<float>()[70] = 50;
  EXPECT_EQ(with_kept(plain), without(plain));
  EXPECT_EQ(kept.size(), 0u);
}

TEST_P(KeptWeightsTest, ReplaysSeeChangesAndWhatTheyCompute) {
  Recording recording;
  std::vector<Tensor> inputs{images};
  const auto pass = [&](bool computes) {
    run(computes ? weight * inputs[0].narrow(0, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1).to(DType::f32) : weight,
        inputs[0]);
  };
  for (const bool computes : {false, true}) {
    const KeptWeights::Use use(kept);
    ASSERT_TRUE(recording.record(inputs, [&] { pass(computes); })) << recording.refusal();
    for (int i = 0; i < 3; ++i) {
      inputs = {draw.tensor(images.shape(), {.dtype = GetParam(), .format = MemoryFormat::channels_last})};
      flat.mul_(-1.5);
      recording.replay(inputs);
      const std::vector<double> replayed = results();
      KeptWeights none;
      const KeptWeights::Use fresh(none);
      pass(computes);
      EXPECT_EQ(replayed, results()) << computes << i;
    }
  }
}

std::vector<DType> types() {
  return cpu::has_bf16() ? std::vector{DType::f32, DType::bf16} : std::vector{DType::f32};
}

TEST(KeptWeights, TellShapesAndTypesApart) {
  Draw draw(5);
  const Tensor flat = draw.tensor({8 + 64 * 32 * 9}, {});
  const Tensor weight = flat.narrow(0, 8, 64 * 32 * 9).with_own_version();
  KeptWeights kept;
  for (int round = 0; round < 2; ++round) {
    for (const DType dtype : types()) {
      for (const auto& [o, i] : {std::pair(64, 32), std::pair(32, 64)}) {
        const TensorOptions image{.dtype = dtype, .format = MemoryFormat::channels_last};
        const Tensor x = draw.tensor({6, i, 8, 8}, image), with = weight.view({o, i, 3, 3});
        auto forward = [&, out = empty({6, o, 8, 8}, image)]() mutable {
          MILLRACE_LAUNCH(kCpu, conv2d_forward, x, with, Tensor(), Conv2dOptions{.padding = 1}, out);
          return values(out);
        };
        const std::vector<double> expected = forward();
        const KeptWeights::Use use(kept);
        EXPECT_EQ(forward(), expected) << round << " " << name_of(dtype) << " " << o;
      }
    }
  }
  EXPECT_EQ(kept.size(), 2 * types().size());
}

INSTANTIATE_TEST_SUITE_P(Types, KeptWeightsTest, testing::ValuesIn(types()),
                         [](const auto& type) { return std::string(name_of(type.param)); });

}  // namespace
}  // namespace millrace
