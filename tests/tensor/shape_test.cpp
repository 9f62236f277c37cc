#include "tensor/shape.h"

#include <gmock/gmock.h>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Shape, InsertsErasesAndPrints) {
  Shape shape{2, 3};
  shape.insert(0, 5);
  shape.insert(3, 7);
  EXPECT_EQ(shape, (Shape{5, 2, 3, 7}));
  shape.erase(1);
  EXPECT_EQ(shape, (Shape{5, 3, 7}));
  EXPECT_EQ(shape.to_string(), "[5, 3, 7]");
  EXPECT_EQ(Shape{}.to_string(), "[]");
  EXPECT_EQ(shape[-1], 7);
  EXPECT_EQ(shape.numel(), 105);
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_NE(shape, (Shape{5, 3}));
}

TEST(Shape, HoldsEightDimensionsAtMost) {
  EXPECT_NO_THROW((Shape{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_THROW((Shape{1, 2, 3, 4, 5, 6, 7, 8, 9}), InputError);
}

TEST(Shape, Broadcasts) {
  EXPECT_EQ(broadcast_shapes({3, 1}, {4}, "add"), (Shape{3, 4}));
  EXPECT_EQ(broadcast_shapes({}, {2, 3}, "add"), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes({1, 5}, {7, 1, 1}, "add"), (Shape{7, 1, 5}));
  EXPECT_EQ(broadcast_shapes({0}, {1}, "add"), (Shape{0}));
  EXPECT_THAT(test::input_error([] {
                broadcast_shapes({2, 3}, {2, 4}, "mul");
              }),
              AllOf(HasSubstr("mul"), HasSubstr("[2, 3]"), HasSubstr("[2, 4]")));
}

TEST(Shape, WrapsDimensions) {
  EXPECT_EQ(wrap_dim(-1, 3, "sum"), 2);
  EXPECT_THAT(test::input_error([] { wrap_dim(3, 3, "sum"); }), AllOf(HasSubstr("sum"), HasSubstr("3")));
  EXPECT_THROW(wrap_dim(-4, 3, "sum"), InputError);
}

TEST(Device, ReadsNamesAndSaysWhatIsMissing) {
  EXPECT_EQ(Device::parse("cpu"), kCpu);
  EXPECT_THAT(test::input_error([] { Device::parse("gpu"); }), HasSubstr("cuda:N"));
  EXPECT_THROW(Device::parse("cuda:x"), InputError);
  EXPECT_THROW(Device::parse("cuda:"), InputError);
  if (cuda_device_count() == 0) {
    EXPECT_FALSE(cuda_unavailable_reason().empty());
    EXPECT_THAT(test::input_error([] { Device::parse("cuda"); }), HasSubstr(cuda_unavailable_reason()));
    EXPECT_THROW(empty({2}, {.device = {Device::Kind::cuda, 0}}), InputError);
  }
}

}  // namespace
}  // namespace millrace
