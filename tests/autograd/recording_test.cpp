// What a recording of launches cannot repeat says so.
#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "tensor/kernels/tape.h"

namespace millrace {
namespace {

TEST(Recording, DropoutSaysThatItDraws) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Variable x(ones({4, 3}, {.dtype = dtype}), true);
    Tape tape;
    EXPECT_FALSE(tape.record({}, [&] { dropout(x, 0.5, 1); })) << name_of(dtype);
    EXPECT_EQ(tape.refusal(), "it draws random numbers") << name_of(dtype);
    EXPECT_TRUE(tape.record({}, [&] { dropout(x, 0, 1); })) << "nothing is drawn: " << tape.refusal();
  }
}

TEST(Recording, DropoutsGradientSaysThatItDraws) {
  const Variable x(ones({4, 3}), true);
  const Variable loss = sum(dropout(x, 0.5, 1));
  loss.backward({.retain_graph = true});
  Tape tape;
  EXPECT_FALSE(tape.record({}, [&] { loss.backward(); }));
  EXPECT_EQ(tape.refusal(), "it draws random numbers");
}

}  // namespace
}  // namespace millrace
