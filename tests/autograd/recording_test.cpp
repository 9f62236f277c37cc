// What a recording of launches cannot repeat says so.
#include "tensor/kernels/recording.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"

namespace millrace {
namespace {

TEST(Recording, DropoutSaysThatItDraws) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Variable x(ones({4, 3}, {.dtype = dtype}), true);
    Recording recording;
    EXPECT_FALSE(recording.record({}, [&] { dropout(x, 0.5, 1); })) << name_of(dtype);
    EXPECT_EQ(recording.refusal(), "it draws random numbers") << name_of(dtype);
    EXPECT_TRUE(recording.record({}, [&] { dropout(x, 0, 1); }))
        << "nothing is drawn: " << recording.refusal();
  }
}

TEST(Recording, DropoutsGradientSaysThatItDraws) {
  const Variable x(ones({4, 3}), true);
  const Variable loss = sum(dropout(x, 0.5, 1));
  loss.backward({.retain_graph = true});
  Recording recording;
  EXPECT_FALSE(recording.record({}, [&] { loss.backward(); }));
  EXPECT_EQ(recording.refusal(), "it draws random numbers");
}

}  // namespace
}  // namespace millrace
