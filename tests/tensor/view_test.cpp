#include <gmock/gmock.h>
#include <numeric>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor counting(const Shape& shape) { return arange(0, static_cast<double>(shape.numel())).view(shape); }

TEST(View, PermuteTransposeAndT) {
  const Tensor x = counting({2, 3, 4});
  const Tensor y = x.permute({2, 0, 1});
  EXPECT_EQ(y.shape(), (Shape{4, 2, 3}));
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 4; ++k) {
        EXPECT_EQ(y.at({k, i, j}), i * 12 + j * 4 + k);
      }
    }
  }
  EXPECT_EQ(x.transpose(0, -1).shape(), (Shape{4, 3, 2}));
  EXPECT_THAT(test::values(counting({2, 3}).t()), ElementsAre(0, 3, 1, 4, 2, 5));
  Tensor z = counting({2, 3});
  z.t_();
  EXPECT_EQ(z.shape(), (Shape{3, 2}));
  EXPECT_THROW(x.t(), InputError);
  EXPECT_THROW(x.permute({0, 0, 1}), InputError);
  EXPECT_THROW(x.permute({0, 1}), InputError);
}

TEST(View, SliceNarrowSelect) {
  const Tensor x = counting({5, 4});
  EXPECT_THAT(test::values(x.slice(0, 1, 5, 2)), ElementsAre(4, 5, 6, 7, 12, 13, 14, 15));
  EXPECT_THAT(test::values(x.slice(1, -1, 100)), ElementsAre(3, 7, 11, 15, 19));
  EXPECT_EQ(x.slice(0, 3, 1).shape(), (Shape{0, 4}));
  EXPECT_THAT(test::values(x.narrow(0, 2, 1)), ElementsAre(8, 9, 10, 11));
  EXPECT_THAT(test::values(x.select(1, -1)), ElementsAre(3, 7, 11, 15, 19));
  EXPECT_EQ(x[1][2].item(), 6);
  EXPECT_THROW(x.slice(0, 0, 5, 0), InputError);
  EXPECT_THROW(x.narrow(0, 4, 2), InputError);
  EXPECT_THROW(x.select(0, 5), InputError);
}

TEST(View, SharesMemory) {
  Tensor x = zeros({3, 3});
  x.select(0, 1).fill_(5);
  x.t().select(0, 2).add_(1);
  EXPECT_THAT(test::values(x), ElementsAre(0, 0, 1, 5, 5, 6, 0, 0, 1));
}

TEST(View, SqueezeUnsqueezeExpand) {
  const Tensor x = counting({1, 3, 1});
  EXPECT_EQ(x.squeeze().shape(), (Shape{3}));
  EXPECT_EQ(x.squeeze(0).shape(), (Shape{3, 1}));
  EXPECT_EQ(x.squeeze(1).shape(), (Shape{1, 3, 1}));
  EXPECT_EQ(x.unsqueeze(-1).shape(), (Shape{1, 3, 1, 1}));
  EXPECT_EQ(x.unsqueeze(0).shape(), (Shape{1, 1, 3, 1}));
  EXPECT_TRUE(counting({2, 3}).unsqueeze(1).is_contiguous());
  EXPECT_THAT(test::values(x.squeeze().expand({2, 3})), ElementsAre(0, 1, 2, 0, 1, 2));
  EXPECT_THAT(test::values(x.expand({1, 3, 2})), ElementsAre(0, 0, 1, 1, 2, 2));
  EXPECT_EQ(x.expand({2, 2, -1, 4}).shape(), (Shape{2, 2, 3, 4}));
  EXPECT_THROW(x.expand({-1, 1, 1, 1}), InputError);
  EXPECT_THROW(ones({1}).expand({-2}), InputError);
  EXPECT_THROW(x.expand({2, 4, 1}), InputError);
  EXPECT_THROW(x.expand({3, 1}), InputError);
}

TEST(View, ViewsWhatStridesAllow) {
  const Tensor x = counting({2, 3, 4});
  EXPECT_EQ(x.view({6, -1}).shape(), (Shape{6, 4}));
  EXPECT_EQ(x.view({-1}).at({23}), 23);
  EXPECT_EQ(x.view({1, 2, 1, 12, 1}).at({0, 1, 0, 3, 0}), 15);
  EXPECT_EQ(x.narrow(0, 1, 1).view({12}).at({0}), 12);
  EXPECT_EQ(x.narrow(2, 0, 2).view({6, 2}).at({5, 1}), 21);  // only the outer two merge
  EXPECT_THAT(test::input_error([&] { x.narrow(2, 0, 2).view({2, 6}); }), HasSubstr("reshape"));
  EXPECT_THROW(x.transpose(0, 1).view({24}), InputError);
  EXPECT_THROW(x.view({5, 5}), InputError);
  EXPECT_THROW(x.view({-1, -1}), InputError);
  EXPECT_THROW(x.view({-1, 7}), InputError);
  EXPECT_EQ(full({}, 3).view({1, 1}).at({0, 0}), 3);
  EXPECT_EQ(zeros({0, 3}).view({3, 0}).shape(), (Shape{3, 0}));
}

TEST(View, RefusesToReadChannelsLastAsRowMajor) {
  const Tensor image = counting({2, 3, 4, 5}).contiguous(MemoryFormat::channels_last);
  EXPECT_THROW(image.view({2, 60}), InputError);
  const std::vector<double> flat = test::values(image.reshape({2, 60}));
  for (std::size_t i = 0; i < flat.size(); ++i) {
    ASSERT_EQ(flat[i], static_cast<double>(i));
  }
  EXPECT_EQ(image.view({2, 3, 20}).at({1, 2, 19}), 119);  // H and W do merge
}

/// Every view agrees with reading through strides, for random chains of views.
TEST(View, ViewsAgreeWithTheirCopies) {
  auto engine = test::random_engine();
  for (int round = 0; round < 300; ++round) {
    Tensor x = test::sample({3, 4, 2, 6}, DType::f32, engine,
                            round % 2 ? MemoryFormat::channels_last : MemoryFormat::row_major);
    for (int step = 0; step < 3; ++step) {
      const int d = static_cast<int>(engine() % 4);
      switch (engine() % 3) {
        case 0:
          x = x.transpose(d, static_cast<int>(engine() % 4));
          break;
        case 1:
          x = x.slice(d, static_cast<std::int64_t>(engine() % 2), 100,
                      1 + static_cast<std::int64_t>(engine() % 2));
          break;
        default:
          if (x.size(d) == 1) {
            x = x.narrow(d, 0, 1);
          }
      }
    }
    const std::vector<double> expected = test::values(x);
    ASSERT_EQ(test::values(x.contiguous()), expected) << test::seed();
    ASSERT_EQ(test::values(x.contiguous(MemoryFormat::channels_last)), expected) << test::seed();
    ASSERT_TRUE(x.contiguous(MemoryFormat::channels_last).is_contiguous(MemoryFormat::channels_last));
    ASSERT_EQ(test::values(x.clone()), expected) << test::seed();
    ASSERT_EQ(test::values(x.reshape({-1})), expected) << test::seed();
    ASSERT_EQ(test::values(x.to(DType::f64)), expected) << test::seed();
  }
}

TEST(Tensor, KnowsItsMemoryOrder) {
  const Tensor image = zeros({2, 3, 4, 5}, {.format = MemoryFormat::channels_last});
  EXPECT_TRUE(image.is_contiguous(MemoryFormat::channels_last));
  EXPECT_FALSE(image.is_contiguous());
  EXPECT_TRUE(image.is_dense());
  EXPECT_FALSE(image.narrow(3, 0, 2).is_dense());
  EXPECT_FALSE(zeros({1, 4}).expand({3, 4}).is_dense());
  EXPECT_EQ(image.clone().strides(), image.strides());
  EXPECT_EQ(empty_like(image).strides(), image.strides());
  EXPECT_EQ(image.to(DType::bf16).strides(), image.strides());
  EXPECT_EQ(image.contiguous().strides(), (Strides{60, 20, 5, 1}));
  EXPECT_EQ(image.contiguous(MemoryFormat::channels_last).storage(), image.storage());
  EXPECT_EQ(dense_strides({2, 3, 4, 5}, MemoryFormat::channels_last), (Strides{60, 1, 15, 3}));
}

TEST(Tensor, CountsChangesInPlace) {
  Tensor x = ones({4});
  const auto version = x.storage()->version();
  x.add_(1);
  x.narrow(0, 0, 2).mul_(2);
  x.copy_(zeros({4}));
  x.set({1}, 3);
  EXPECT_EQ(x.storage()->version(), version + 4);
  Tensor own = x.with_own_version();
  own.add_(1);
  EXPECT_EQ(x.storage()->version(), version + 4);
  EXPECT_EQ(own.storage()->version(), 1u);
  EXPECT_EQ(x.at({1}), 4);
}

TEST(Tensor, CreatesAndReads) {
  EXPECT_THAT(test::values(tensor({{1, 2}, {3, 4}}, {.dtype = DType::i32})), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(test::values(arange(1, 2, 0.25)), ElementsAre(1, 1.25, 1.5, 1.75));
  EXPECT_THAT(test::values(arange(3, 0, -1, {.dtype = DType::i64})), ElementsAre(3, 2, 1));
  EXPECT_EQ(arange(3, 0).numel(), 0);
  EXPECT_EQ(full({}, 2.5).item(), 2.5);
  EXPECT_EQ(tensor({1}).shape(), (Shape{1}));
  EXPECT_EQ(tensor({0, 0}).shape(), (Shape{2}));
  EXPECT_EQ(tensor({{1}, {2}}).shape(), (Shape{2, 1}));
  EXPECT_EQ(tensor({{1}}).shape(), (Shape{1, 1}));
  EXPECT_EQ(tensor({}).shape(), (Shape{0}));
  EXPECT_EQ(tensor({300}, {.dtype = DType::i32}).to(DType::u8).item(), 44);
  EXPECT_THROW(arange(0, 1, 0), InputError);
  EXPECT_THROW(tensor({{1, 2}, {3}}), InputError);
  EXPECT_THROW(empty({2, -1}), InputError);
  EXPECT_THROW(zeros({2}).item(), InputError);
  EXPECT_THROW(Tensor().item(), InputError);
  EXPECT_THROW(Tensor().clone(), InputError);
  EXPECT_THROW(Tensor().to(DType::f64), InputError);
  EXPECT_THROW(zeros({2, 2}).at({2, 0}), InputError);
  EXPECT_THROW(zeros({2, 2}).at({0}), InputError);
  EXPECT_THAT(test::input_error([] { (void)zeros({2}).data<double>(); }), HasSubstr("f64"));
}

TEST(Tensor, SharesACallersMemory) {
  float memory[] = {1, 2, 3, 4, 5, 6};
  bool released = false;
  {
    Tensor x = from_blob(memory, {2, 3}, {}, [&] { released = true; });
    x.mul_(2);
    const Tensor columns = from_blob(memory, {3, 2}, {1, 3}, {});
    EXPECT_THAT(test::values(columns), ElementsAre(2, 8, 4, 10, 6, 12));
    EXPECT_FALSE(released);
  }
  EXPECT_TRUE(released);
  EXPECT_EQ(memory[5], 12);
}

}  // namespace
}  // namespace millrace
