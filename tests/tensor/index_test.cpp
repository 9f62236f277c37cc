#include <gmock/gmock.h>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor random_index(const Shape& shape, std::int64_t bound, std::mt19937_64& engine) {
  Tensor index = empty(shape, {.dtype = DType::i64});
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    index.data<std::int64_t>()[i] = static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(bound));
  }
  return index;
}

TEST(Index, SelectMatchesSlices) {
  auto engine = test::random_engine();
  for (DType dtype : test::kAllTypes) {
    for (MemoryFormat format : {MemoryFormat::row_major, MemoryFormat::channels_last}) {
      const Tensor x = test::sample({3, 4, 5, 6}, dtype, engine, format);
      for (int dim = 0; dim < 4; ++dim) {
        const Tensor index = random_index({7}, x.size(dim), engine);
        const Tensor got = index_select(x, dim - 4, index);
        ASSERT_EQ(got.size(dim), 7);
        for (std::int64_t i = 0; i < 7; ++i) {
          const auto place = index.data<std::int64_t>()[i];
          ASSERT_EQ(test::values(got.select(dim, i)), test::values(x.select(dim, place))) << test::seed();
        }
      }
    }
  }
  const Tensor image = zeros({3, 4, 5, 6}, {.format = MemoryFormat::channels_last});
  EXPECT_TRUE(index_select(image, 0, tensor({2, 0}, {.dtype = DType::i64}))
                  .is_contiguous(MemoryFormat::channels_last));
}

TEST(Index, GatherAndScatterAddMatchLoops) {
  auto engine = test::random_engine();
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32}) {
    for (int dim = 0; dim < 3; ++dim) {
      const Tensor x = test::sample({5, 6, 4}, dtype, engine).transpose(0, 2).transpose(0, 2);
      const Tensor index = random_index({3, 5, 4}, x.size(dim), engine);
      const Tensor got = gather(x, dim, index);
      const Tensor source = test::sample(index.shape(), dtype, engine);
      Tensor into = zeros(x.shape(), {.dtype = dtype});
      Tensor expected = zeros(x.shape(), {.dtype = DType::f64});
      scatter_add_(into, dim, index, source);
      for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t j = 0; j < 5; ++j) {
          for (std::int64_t k = 0; k < 4; ++k) {
            std::int64_t place[] = {i, j, k};
            place[dim] = static_cast<std::int64_t>(index.at({i, j, k}));
            ASSERT_EQ(got.at({i, j, k}), x.at({place[0], place[1], place[2]}));
            expected.set({place[0], place[1], place[2]},
                         expected.at({place[0], place[1], place[2]}) + source.at({i, j, k}));
          }
        }
      }
      ASSERT_EQ(test::values(into), test::values(expected))
          << name_of(dtype) << " dim " << dim << " seed " << test::seed();
    }
  }
}

TEST(Index, RefusesWhatIsOutside) {
  const Tensor x = zeros({2, 3});
  const Tensor index = tensor({0, 3}, {.dtype = DType::i64});
  EXPECT_THAT(test::input_error([&] { index_select(x, 1, index); }),
              AllOf(HasSubstr("3"), HasSubstr("index_select")));
  EXPECT_THROW(index_select(x, 1, tensor({-1}, {.dtype = DType::i64})), InputError);
  EXPECT_THROW(index_select(x, 1, tensor({0}, {.dtype = DType::i32})), InputError);
  EXPECT_THROW(index_select(x, 1, index.view({1, 2})), InputError);
  EXPECT_THROW(gather(x, 0, index.view({1, 2})), InputError);
  EXPECT_THROW(gather(x, 0, index), InputError);
  Tensor into = zeros({2, 3});
  EXPECT_THROW(scatter_add_(into, 0, index.view({1, 2}), zeros({1, 3})), InputError);
}

TEST(Index, CatAndStack) {
  const Tensor a = tensor({{1, 2}, {3, 4}});
  const Tensor b = tensor({{5, 6}}, {.dtype = DType::f64});
  EXPECT_THAT(test::values(cat({a, b})), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(cat({a, b}).dtype(), DType::f64);
  EXPECT_THAT(test::values(cat({a, a.t()}, -1)), ElementsAre(1, 2, 1, 3, 3, 4, 2, 4));
  EXPECT_THAT(test::values(stack({a[0], a[1]}, 1)), ElementsAre(1, 3, 2, 4));
  EXPECT_EQ(stack({a, a}, -1).shape(), (Shape{2, 2, 2}));
  EXPECT_EQ(stack({full({}, 1), full({}, 2)}).shape(), (Shape{2}));
  EXPECT_THROW(cat({a, b}, 1), InputError);
  EXPECT_THROW(stack({a, b}), InputError);
  EXPECT_THROW(cat(std::span<const Tensor>()), InputError);
  EXPECT_THROW(stack(std::span<const Tensor>()), InputError);
  const Tensor image = zeros({1, 2, 3, 3}, {.format = MemoryFormat::channels_last});
  EXPECT_TRUE(cat({image, image}, 1).is_contiguous(MemoryFormat::channels_last));
}

}  // namespace
}  // namespace millrace
