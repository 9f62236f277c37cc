#include "pipeline/loader/slab.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(Slab, HoldsImagesChannelsLastAndStartsZeroed) {
  const Slab slab(4,
                  {{"image", DType::bf16, {3, 5, 7}}, {"label", DType::i64, {}}, {"soft", DType::f32, {10}}});
  const Tensor& images = slab.field("image");
  EXPECT_EQ(images.shape(), (Shape{4, 3, 5, 7}));
  EXPECT_EQ(images.strides(), (Strides{105, 1, 21, 3}));
  EXPECT_EQ(images.dtype(), DType::bf16);
  EXPECT_EQ(slab.field("label").shape(), Shape{4});
  EXPECT_EQ(slab.field("soft").shape(), (Shape{4, 10}));
  EXPECT_EQ(slab.ids().shape(), Shape{4});
  for (std::size_t i = 0; i < images.storage()->bytes(); ++i) {
    ASSERT_EQ(images.raw()[i], std::byte{0});
  }
}

TEST(Slab, TakesOverAnotherOneWhole) {
  const std::vector<FieldSpec> fields{{"image", DType::u8, {3, 2, 2}}, {"label", DType::i64, {}}};
  Slab from(5, fields), to(5, from.fields());
  from.valid = 4;
  from.first_position = 20;
  for (std::int64_t i = 0; i < 5; ++i) {
    from.ids().set({i}, static_cast<double>(i));
    from.field("label").select(0, i).fill_(static_cast<double>(i * i));
    from.field("image").select(0, i).fill_(static_cast<double>(10 + i));
  }
  to.copy_from(from);
  EXPECT_EQ(to.valid, 4);
  EXPECT_EQ(to.first_position, 20);
  EXPECT_EQ(to.ids().at({4}), 4);
  EXPECT_EQ(to.field("label").at({3}), 9);
  EXPECT_EQ(to.field("image").at({4, 2, 1, 1}), 14);
  EXPECT_EQ(to.field("image").strides(), from.field("image").strides());
}

TEST(Slab, NamesItsFieldsWhenAskedForAnother) {
  const Slab slab(1, {{"image", DType::u8, {1, 2, 2}}, {"label", DType::i64, {}}});
  try {
    slab.field("mask");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("'mask'"), testing::HasSubstr("image, label")));
  }
}

}  // namespace
}  // namespace millrace
