#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autograd/ops.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

/// An input, an operation that must refuse it, and what its message must say.
struct Misuse {
  const char* name;
  std::function<void()> run;
  const char* message;
};

Variable of(const Shape& shape, DType dtype = DType::f32) { return Variable(zeros(shape, {.dtype = dtype})); }
Tensor labels(std::initializer_list<double> values) { return tensor(values, {.dtype = DType::i64}); }

class ShapeError : public testing::TestWithParam<Misuse> {};

TEST_P(ShapeError, SaysWhatIsWrong) {
  EXPECT_THAT(GetParam().run, ThrowsMessage<InputError>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, ShapeError,
    testing::ValuesIn(std::vector<Misuse>{
        {"conv2d_channels",
         [] {
           conv2d(of({32, 16, 8, 8}), of({64, 3, 3, 3}));
         },
         "conv2d: input [32, 16, 8, 8] has 16 channels, weight [64, 3, 3, 3] expects 3"},
        {"conv2d_dimensions",
         [] {
           conv2d(of({3, 8, 8}), of({4, 3, 3, 3}));
         },
         "conv2d: expected an input [N, C, H, W], got [3, 8, 8]"},
        {"conv2d_bias",
         [] {
           conv2d(of({1, 3, 8, 8}), of({4, 3, 3, 3}), of({3}));
         },
         "conv2d: got bias f32 [3], expected f32 [4]"},
        {"conv2d_groups",
         [] {
           conv2d(of({1, 3, 8, 8}), of({4, 1, 3, 3}), {.groups = 2});
         },
         "conv2d: groups = 2 does not divide"},
        {"conv2d_window",
         [] {
           conv2d(of({1, 3, 2, 2}), of({4, 3, 3, 3}));
         },
         "conv2d: input [1, 3, 2, 2] with padding 0 x 0 is smaller than the window 3 x 3"},
        {"conv2d_stride",
         [] {
           conv2d(of({1, 3, 8, 8}), of({4, 3, 3, 3}), {.stride = 0});
         },
         "conv2d: stride and dilation must be at least 1"},
        {"conv2d_max_pool",
         [] {
           conv2d(of({1, 3, 8, 3}), of({4, 3, 3, 3}), {.max_pool = true});
         },
         "conv2d: result [1, 4, 6, 1] is smaller than the 2 x 2 window of the max pooling behind it"},
        {"conv2d_type",
         [] {
           conv2d(of({1, 3, 8, 8}), of({4, 3, 3, 3}, DType::bf16));
         },
         "expected an f32 weight"},
        {"conv2d_integers",
         [] {
           conv2d(of({1, 3, 8, 8}, DType::u8), of({4, 3, 3, 3}));
         },
         "expected f32 or bf16, got u8"},
        {"linear_features",
         [] {
           linear(of({2, 5}), of({3, 4}));
         },
         "linear: input [2, 5] has 5 features, weight [3, 4] expects 4"},
        {"linear_image",
         [] {
           linear(of({2, 5, 1, 1}), of({3, 5}));
         },
         "flatten()"},
        {"linear_bias",
         [] {
           linear(of({2, 5}), of({3, 5}), of({5}));
         },
         "linear: bias [5] does not fit weight [3, 5], expected [3]"},
        {"linear_types",
         [] {
           linear(of({2, 5}, DType::f64), of({3, 5}));
         },
         "linear: got input f64 and weight f32"},
        {"matmul",
         [] {
           matmul(of({2, 3}), of({2, 3}));
         },
         "matmul"},
        {"pool_small",
         [] {
           max_pool2d(of({1, 3, 2, 2}), {.kernel = 3});
         },
         "max_pool2d: input [1, 3, 2, 2] is smaller than the kernel 3 x 3"},
        {"pool_no_pixels",
         [] {
           max_pool2d(of({1, 3, 0, 4}), {.kernel = 2, .padding = 1});
         },
         "max_pool2d: input [1, 3, 0, 4] has no pixels"},
        {"pool_padding",
         [] {
           avg_pool2d(of({1, 3, 8, 8}), {.kernel = 2, .padding = 2});
         },
         "at most half the kernel"},
        {"pool_adaptive",
         [] {
           adaptive_avg_pool2d(of({1, 3, 8, 8}), 0);
         },
         "cannot pool input [1, 3, 8, 8] to 0 x 0"},
        {"conv2d_other_kernel",
         [] {
           conv2d(of({1, 3, 8, 8}), of({4, 3, 3, 3}), {.kernel = {3, 5}});
         },
         "conv2d: got options for a kernel of (3, 5) and weight [4, 3, 3, 3]; leave the kernel's size out"},
        {"conv2d_no_bias",
         [] {
           conv2d(of({1, 3, 8, 8}), of({4, 3, 3, 3}), of({4}), {.bias = false});
         },
         "conv2d: got a bias [4] and options without one; leave one of them out"},
        {"pool_of_no_kernel",
         [] {
           max_pool2d(of({1, 3, 8, 8}), {.kernel = 0});
         },
         "max_pool2d: got kernel 0 x 0"},
        {"batch_norm_dimensions",
         [] {
           batch_norm(of({2, 3, 4}), {}, {}, {});
         },
         "batch_norm: expected an input [N, C, H, W] or [N, C], got [2, 3, 4]"},
        {"batch_norm_weight",
         [] {
           batch_norm(of({2, 3}), of({4}), {}, {});
         },
         "batch_norm: got weight f32 [4], expected f32 [3] for input [2, 3]"},
        {"batch_norm_residual_without_relu",
         [] {
           batch_norm(of({2, 3}), {}, {}, {.activation = Activation::gelu}, of({2, 3}));
         },
         "batch_norm: a residual needs relu behind it; add it to the result instead"},
        {"batch_norm_residual_shape",
         [] {
           batch_norm(of({2, 3}), {}, {}, {.activation = Activation::relu}, of({1, 3}));
         },
         "batch_norm: got a residual f32 [1, 3], expected f32 [2, 3] as the input"},
        {"batch_norm_statistics",
         [] {
           batch_norm(of({2, 3}), {}, {}, {.training = false});
         },
         "mean and var must be given"},
        {"batch_norm_max_pool_rows",
         [] {
           batch_norm(of({2, 3}), {}, {}, {.max_pool = true});
         },
         "batch_norm: max pooling of 2x2 windows needs images of 2x2 pixels or more, got [2, 3]"},
        {"batch_norm_max_pool",
         [] {
           batch_norm(of({2, 3, 1, 8}), {}, {}, {.activation = Activation::relu, .max_pool = true});
         },
         "batch_norm: max pooling of 2x2 windows needs images of 2x2 pixels or more, got [2, 3, 1, 8]"},
        {"pad_reflect",
         [] {
           pad2d(of({1, 1, 2, 2}), {.left = 2}, PadMode::reflect);
         },
         "less than the image's side"},
        {"pad_negative",
         [] {
           pad2d(of({1, 1, 2, 2}), {.top = -1});
         },
         "pad2d: cannot pad input [1, 1, 2, 2]"},
        {"dropout", [] { dropout(of({2}), 1.5, 0); }, "dropout: got probability 1.5"},
        {"cross_entropy_logits",
         [] {
           cross_entropy(of({2, 3, 1}), labels({0, 1}));
         },
         "expected logits [n, classes]"},
        {"cross_entropy_target",
         [] {
           cross_entropy(of({2, 3}), labels({0, 1, 2}));
         },
         "for logits [2, 3] expected a target i64 [2] or probabilities [2, 3], got i64 [3]"},
        {"cross_entropy_soft",
         [] {
           cross_entropy(of({2, 3}), zeros({2, 4}));
         },
         "got f32 [2, 4]"},
        {"cross_entropy_label",
         [] {
           cross_entropy(of({2, 3}), labels({0, 3}));
         },
         "cross_entropy: row 1 has label 3, expected 0 to 2"},
        {"cross_entropy_label_f64",
         [] {
           cross_entropy(of({2, 3}, DType::f64), labels({0, 3}));
         },
         "cross_entropy: row 1 has label 3, expected 0 to 2"},
        {"cross_entropy_smoothing",
         [] {
           cross_entropy(of({2, 3}), labels({0, 1}), {.label_smoothing = 2});
         },
         "label smoothing 2"},
        {"mse",
         [] {
           mse_loss(of({2, 3}), of({3, 2}));
         },
         "mse_loss: input [2, 3] and target [3, 2] must have one shape"},
        {"add",
         [] {
           add(of({2, 3}), of({4}));
         },
         "[2, 3]"},
        {"where", [] { where(zeros({2}, {.dtype = DType::u8}), of({3}), of({3})); }, "where"},
        {"view",
         [] {
           view(of({2, 3}), {4});
         },
         "view"},
        {"t",
         [] {
           millrace::t(of({2, 3, 4}));
         },
         "t: "},
        {"permute",
         [] {
           permute(of({2, 3}), {0, 0});
         },
         "permute: dimension 0 appears twice"},
        {"expand",
         [] {
           expand(of({2, 3}), {2, 4});
         },
         "expand: shape [2, 3] cannot be expanded to [2, 4]"},
        {"sum",
         [] {
           sum(of({2, 3}), {.dims = {2}});
         },
         "sum"},
        {"max_empty", [] { max(of({0})); }, "max"},
        {"index_select",
         [] {
           index_select(of({2, 3}), 0, zeros({2}));
         },
         "index_select: got an index of type f32, expected i64"},
        {"gather",
         [] {
           gather(of({2, 3}), 0, labels({0}));
         },
         "gather: index [1] does not fit tensor [2, 3]"},
        {"cat",
         [] {
           cat({of({2, 3}), of({2, 4})});
         },
         "cat: shapes [2, 3] and [2, 4] differ"},
        {"stack",
         [] {
           stack({of({2, 3}), of({2, 4})});
         },
         "stack: shapes [2, 3] and [2, 4] differ"},
        {"relu_integers", [] { relu(of({2}, DType::i64)); }, "relu: expected a floating type, got i64 [2]"},
    }),
    [](const testing::TestParamInfo<Misuse>& info) { return info.param.name; });

}  // namespace
}  // namespace millrace
