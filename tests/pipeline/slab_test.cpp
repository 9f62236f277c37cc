#include "pipeline/slab.h"

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
