#include <algorithm>
#include <cassert>
#include <utility>

#include "tensor/cpu/conv/direct.h"
#include "tensor/cpu/conv/sizes.h"
#include "tensor/cpu/conv/weight_gradient.h"
#include "tensor/cpu/conv/weight_layout.h"
#include "tensor/cpu/conv/winograd.h"
#include "tensor/cpu/onednn.h"
#include "tensor/kernels/conv.h"
#include "tensor/kernels/elementwise.h"

namespace millrace::cpu {
namespace {

using dnnl::memory;
using onednn::Call;

/// The memory of one convolution as oneDNN names it: images channels-last, weights in whatever order is
/// fastest.
struct Layout {
  memory::dims strides, dilates, padding, padding_behind;
  memory::desc x, out, bias;
  memory::desc plain_weight;  // f32, as PyTorch keeps them
  memory::desc weight, weight_gradient;
};

/// How far a result of `out` places reaches beyond the input, which is where oneDNN asks for padding.
std::int64_t reach_behind(std::int64_t in, std::int64_t kernel, std::int64_t out, std::int64_t stride,
                          std::int64_t padding, std::int64_t dilation) {
  return std::max<std::int64_t>((out - 1) * stride + (kernel - 1) * dilation + 1 - in - padding, 0);
}

Layout layout_of(const Tensor& x, const Shape& weight, const Conv2dOptions& p, const Tensor& out) {
  const auto dims = [](const Shape& shape) { return memory::dims(shape.begin(), shape.end()); };
  memory::dims w = dims(weight);
  if (p.groups > 1) {
    w = {p.groups, weight[0] / p.groups, weight[1], weight[2], weight[3]};
  }
  const auto type = onednn::data_type(x.dtype());
  constexpr auto f32 = memory::data_type::f32;
  constexpr auto any = memory::format_tag::any;
  return {.strides = {p.stride.height, p.stride.width},
          .dilates = {p.dilation.height - 1, p.dilation.width - 1},
          .padding = {p.padding.height, p.padding.width},
          .padding_behind = {reach_behind(x.size(2), weight[2], out.size(2), p.stride.height,
                                          p.padding.height, p.dilation.height),
                             reach_behind(x.size(3), weight[3], out.size(3), p.stride.width, p.padding.width,
                                          p.dilation.width)},
          .x = {dims(x.shape()), type, memory::format_tag::nhwc},
          .out = {dims(out.shape()), type, memory::format_tag::nhwc},
          .bias = {{weight[0]}, f32, memory::format_tag::a},
          .plain_weight = {w, f32, p.groups > 1 ? memory::format_tag::goihw : memory::format_tag::oihw},
          .weight = {w, type, any},
          .weight_gradient = {w, f32, any}};
}

onednn::Key key_of(const Tensor& x, const Shape& weight, bool bias, const Conv2dOptions& p,
                   const Tensor& out) {
  return {static_cast<std::int64_t>(x.dtype()),
          bias,
          x.size(0),
          x.size(1),
          x.size(2),
          x.size(3),
          out.size(2),
          out.size(3),
          weight[0],
          weight[2],
          weight[3],
          p.stride.height,
          p.stride.width,
          p.padding.height,
          p.padding.width,
          p.dilation.height,
          p.dilation.width,
          p.groups};
}

dnnl::convolution_forward::primitive_desc forward_desc(const Layout& l, bool bias) {
  constexpr auto kind = dnnl::prop_kind::forward_training;
  constexpr auto direct = dnnl::algorithm::convolution_direct;
  using Desc = dnnl::convolution_forward::desc;
  const Desc desc =
      bias ? Desc(kind, direct, l.x, l.weight, l.bias, l.out, l.strides, l.dilates, l.padding,
                  l.padding_behind)
           : Desc(kind, direct, l.x, l.weight, l.out, l.strides, l.dilates, l.padding, l.padding_behind);
  return {desc, onednn::attributes(), onednn::engine()};
}

/// A convolution and the reorder of its weights from (or, for their gradient, to) the plain order.
struct Convolution {
  Call reorder;
  Call convolution;
  memory::desc weight = {};  // as it is read
};

Convolution make_reading(const memory::desc& weight, const Layout& l, Call convolution) {
  const memory plain = onednn::unbound(l.plain_weight), read = onednn::unbound(weight);
  return {Call(dnnl::reorder(plain, read), {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, read}}),
          std::move(convolution), weight};
}

Convolution make_forward(const Layout& l, bool bias) {
  const auto desc = forward_desc(l, bias);
  const Call::Argument x{DNNL_ARG_SRC, onednn::unbound(l.x)}, out{DNNL_ARG_DST, onednn::unbound(l.out)},
      weight{DNNL_ARG_WEIGHTS, onednn::unbound(desc.weights_desc())};
  const dnnl::convolution_forward primitive(desc);
  if (!bias) {
    return make_reading(desc.weights_desc(), l, Call(primitive, {x, out, weight}, desc.scratchpad_desc()));
  }
  return make_reading(
      desc.weights_desc(), l,
      Call(primitive, {x, out, weight, {DNNL_ARG_BIAS, onednn::unbound(l.bias)}}, desc.scratchpad_desc()));
}

Convolution make_backward_data(const Layout& l) {
  const dnnl::convolution_backward_data::primitive_desc desc(
      {dnnl::algorithm::convolution_direct, l.x, l.weight, l.out, l.strides, l.dilates, l.padding,
       l.padding_behind},
      onednn::attributes(), onednn::engine(), forward_desc(l, false));
  return make_reading(desc.weights_desc(), l,
                      Call(dnnl::convolution_backward_data(desc),
                           {{DNNL_ARG_DIFF_DST, onednn::unbound(l.out)},
                            {DNNL_ARG_DIFF_SRC, onednn::unbound(l.x)},
                            {DNNL_ARG_WEIGHTS, onednn::unbound(desc.weights_desc())}},
                           desc.scratchpad_desc()));
}

Convolution make_backward_weight(const Layout& l, bool bias) {
  constexpr auto direct = dnnl::algorithm::convolution_direct;
  using Desc = dnnl::convolution_backward_weights::desc;
  const Desc wanted =
      bias ? Desc(direct, l.x, l.weight_gradient, l.bias, l.out, l.strides, l.dilates, l.padding,
                  l.padding_behind)
           : Desc(direct, l.x, l.weight_gradient, l.out, l.strides, l.dilates, l.padding, l.padding_behind);
  const dnnl::convolution_backward_weights::primitive_desc desc(wanted, onednn::attributes(),
                                                                onednn::engine(), forward_desc(l, bias));
  const memory gradient = onednn::owned(desc.diff_weights_desc());
  const memory plain = onednn::unbound(l.plain_weight);
  const Call reorder(dnnl::reorder(gradient, plain), {{DNNL_ARG_TO, plain}, {DNNL_ARG_FROM, gradient}});
  const memory x = onednn::unbound(l.x);
  const memory out = onednn::unbound(l.out);
  const dnnl::convolution_backward_weights primitive(desc);
  if (!bias) {
    return {reorder,
            Call(primitive, {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_DST, out}, {DNNL_ARG_DIFF_WEIGHTS, gradient}},
                 desc.scratchpad_desc())};
  }
  return {reorder, Call(primitive,
                        {{DNNL_ARG_SRC, x},
                         {DNNL_ARG_DIFF_DST, out},
                         {DNNL_ARG_DIFF_WEIGHTS, gradient},
                         {DNNL_ARG_DIFF_BIAS, onednn::unbound(l.bias)}},
                        desc.scratchpad_desc())};
}

/// Whether the gradient of the input is sooner had as a forward convolution of the gradient with the weights
/// turned round: it is in oneDNN 2.6, but for small images.
bool forward_is_faster(const Shape& weight, const Conv2dOptions& p, const Tensor& grad) {
  const bool can_pad = p.padding.height < weight[2] && p.padding.width < weight[3];
  const std::int64_t least = grad.dtype() == DType::f32 ? 24 : 64;  // channels
  return is_dense(p) && can_pad && weight[0] >= least && weight[1] >= least && grad.size(2) >= 6 &&
         grad.size(3) >= 6;
}

/// weight [O, I, h, w] as [I, O, h, w], each kernel turned by half a circle.
Tensor turned(const Tensor& weight) {
  const std::int64_t out = weight.size(0), in = weight.size(1), taps = weight.size(2) * weight.size(3);
  Tensor result = empty({in, out, weight.size(2), weight.size(3)});
  const float* const from = weight.data<float>();
  float* const to = result.data<float>();
  constexpr std::int64_t kTile = 16;  // so many runs on either side stay in the L1 cache
  for (std::int64_t first_out = 0; first_out < out; first_out += kTile) {
    for (std::int64_t i = 0; i < in; ++i) {
      for (std::int64_t o = first_out; o < std::min(first_out + kTile, out); ++o) {
        const float* const kernel = from + (o * in + i) * taps;
        std::reverse_copy(kernel, kernel + taps, to + (i * out + o) * taps);
      }
    }
  }
  return result;
}

/// What `prepare` makes of `weight`, or what it made before. oneDNN's layouts have a format, Winograd's none.
template <typename Prepare>
Tensor kept_or(const Tensor& weight, const KeptWeights::Layout& layout, Prepare&& prepare) {
  Tensor* const kept = KeptWeights::place(weight, layout);
  if (kept != nullptr && kept->defined()) {
    return *kept;
  }
  Tensor result = prepare();
  if (kept != nullptr) {
    *kept = result;
  }
  return result;
}

/// `weight`, or that turned round, as `made` reads it.
Tensor prepared(const Tensor& weight, bool turn, Convolution& made) {
  return kept_or(weight, {made.weight, turn}, [&] {
    Tensor result = empty({static_cast<std::int64_t>(made.weight.get_size())}, {.dtype = DType::u8});
    made.reorder.run({(turn ? turned(weight) : weight).raw(), result.raw()});
    return result;
  });
}

/// The same for Winograd's convolution of images of `dtype`.
Tensor prepared_for_winograd(const Tensor& weight, bool turn, DType dtype) {
  const Shape& shape = weight.shape();
  const memory::desc layout({shape.begin(), shape.end()}, onednn::data_type(dtype), memory::format_tag::any);
  return kept_or(weight, {layout, turn}, [&] { return winograd_weights(weight, turn, dtype); });
}

/// Gradients of bf16 that oneDNN 2.6 computes wrongly, and that are made in f32 therefore: the weights' of
/// kernels dilated downwards over channels that leave a block of 16 part empty (seen in images of 30 pixels
/// and more across).
bool weight_gradient_is_wrong(DType dtype, const Shape& weight, const Conv2dOptions& params) {
  return dtype == DType::bf16 && params.dilation.height > 1 && weight[1] % 16 != 0;
}
/// And the images' of 1x1 kernels with an odd number of results, for some sizes of images.
bool data_gradient_is_wrong(DType dtype, const Shape& weight, const Conv2dOptions& params) {
  return dtype == DType::bf16 && weight[2] == 1 && weight[3] == 1 && weight[0] / params.groups % 2 != 0;
}

/// What the gradient of the input is a convolution with, of the gradient with weights turned round: [I, O].
Shape turned_shape(const Shape& weight) { return {weight[1], weight[0], weight[2], weight[3]}; }
/// And its padding.
Size2 turned_padding(const Shape& weight, const Conv2dOptions& params) {
  return {weight[2] - 1 - params.padding.height, weight[3] - 1 - params.padding.width};
}

/// By oneDNN, with `weight` or that turned round.
void run_forward(const Tensor& x, const Tensor& weight, bool turn, const Tensor& bias,
                 const Conv2dOptions& params, Tensor& out) {
  Shape shape = weight.shape();
  if (turn) {
    std::swap(shape[0], shape[1]);
  }
  thread_local onednn::Cache<Convolution> cache;
  const bool biased = bias.defined();
  Convolution& made = cache.find(key_of(x, shape, biased, params, out), "conv2d",
                                 [&] { return make_forward(layout_of(x, shape, params, out), biased); });
  const Tensor read = prepared(weight, turn, made);
  if (biased) {
    made.convolution.run({x.raw(), out.raw(), read.raw(), bias.raw()});
  } else {
    made.convolution.run({x.raw(), out.raw(), read.raw()});
  }
}

}  // namespace

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& params,
                    Tensor& out) {
  assert(x.is_contiguous(MemoryFormat::channels_last) && out.is_contiguous(MemoryFormat::channels_last));
  if (out.numel() == 0) {
    return;
  }
  if (direct_conv2d_is_faster(x.dtype(), weight.shape(), params)) {
    return direct_conv2d_forward(x, weight, bias, params, out);
  }
  if (winograd_is_faster(x.dtype(), weight.shape(), params, out.shape())) {
    return winograd_forward(x, prepared_for_winograd(weight, false, x.dtype()), bias, params.padding, out);
  }
  run_forward(x, weight, false, bias, params, out);
}

void conv2d_backward_data(const Tensor& grad, const Tensor& weight, const Conv2dOptions& params,
                          Tensor& grad_x) {
  if (grad_x.numel() == 0) {
    return;
  }
  if (direct_conv2d_data_is_faster(grad.dtype(), weight.shape(), params)) {
    return direct_conv2d_backward_data(grad, weight, params, grad_x);
  }
  const Size2 padding = turned_padding(weight.shape(), params);
  if (winograd_is_faster(grad.dtype(), turned_shape(weight.shape()), params, grad_x.shape())) {
    return winograd_forward(grad, prepared_for_winograd(weight, true, grad.dtype()), Tensor(), padding,
                            grad_x);
  }
  if (forward_is_faster(weight.shape(), params, grad)) {
    return run_forward(grad, weight, true, Tensor(), {.padding = padding}, grad_x);
  }
  if (data_gradient_is_wrong(grad.dtype(), weight.shape(), params)) {
    Tensor exact = empty(grad_x.shape(), {.format = MemoryFormat::channels_last});
    conv2d_backward_data(grad.to(DType::f32), weight, params, exact);
    return cpu::copy(exact, grad_x);
  }
  thread_local onednn::Cache<Convolution> cache;
  Convolution& made =
      cache.find(key_of(grad_x, weight.shape(), false, params, grad), "conv2d (gradient of the input)",
                 [&] { return make_backward_data(layout_of(grad_x, weight.shape(), params, grad)); });
  const Tensor read = prepared(weight, false, made);
  made.convolution.run({grad.raw(), grad_x.raw(), read.raw()});
}

void conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dOptions& params,
                            Tensor& grad_weight, Tensor& grad_bias) {
  const bool biased = grad_bias.defined();
  if (grad.numel() == 0) {
    cpu::fill(grad_weight, 0);
    if (biased) {
      cpu::fill(grad_bias, 0);
    }
    return;
  }
  const Shape& shape = grad_weight.shape();
  if (direct_conv2d_is_faster(x.dtype(), shape, params)) {
    return direct_conv2d_backward_weight(x, grad, params, grad_weight, grad_bias);
  }
  if (x.dtype() == DType::f32 && winograd_is_faster(x.dtype(), shape, params, grad.shape())) {
    return winograd_backward_weight(x, grad, Tensor(), params.padding, grad_weight, grad_bias);
  }
  if (!biased && channel_tiles_are_faster(x.dtype(), shape, params, grad.shape())) {
    return channel_tiles_backward_weight(x, grad, Tensor(), params, grad_weight);
  }
  if (weight_gradient_is_wrong(x.dtype(), shape, params)) {
    return conv2d_backward_weight(x.to(DType::f32), grad.to(DType::f32), params, grad_weight, grad_bias);
  }
  thread_local onednn::Cache<Convolution> cache;
  Convolution& made =
      cache.find(key_of(x, shape, biased, params, grad), "conv2d (gradient of the weights)",
                 [&] { return make_backward_weight(layout_of(x, shape, params, grad), biased); });
  if (biased) {
    made.convolution.run({x.raw(), grad.raw(), nullptr, grad_bias.raw()});
  } else {
    made.convolution.run({x.raw(), grad.raw()});
  }
  made.reorder.run({grad_weight.raw()});
}

bool conv2d_pools(DType dtype, const Shape& x, const Shape& weight, bool biased, const Conv2dOptions& params,
                  const Shape& pooled) {
  const Shape whole{pooled[0], pooled[1], 2 * pooled[2], 2 * pooled[3]};
  return winograd_is_faster(dtype, weight, params, whole) &&
         winograd_is_faster(dtype, turned_shape(weight), params, x) &&
         (dtype == DType::f32 || (!biased && channel_tiles_are_faster(dtype, weight, params, whole)));
}

void conv2d_max_pool2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Conv2dOptions& params, Tensor& out, Tensor& index) {
  assert(conv2d_pools(x.dtype(), x.shape(), weight.shape(), bias.defined(), params, out.shape()));
  assert(index.dtype() == DType::u8 && index.shape() == out.shape());
  winograd_max_pool_forward(x, prepared_for_winograd(weight, false, x.dtype()), bias, params.padding, out,
                            index);
}

void conv2d_max_pool2d_backward_data(const Tensor& grad, const Tensor& index, const Tensor& weight,
                                     const Conv2dOptions& params, Tensor& grad_x) {
  winograd_unpooled_forward(grad, index, prepared_for_winograd(weight, true, grad.dtype()),
                            turned_padding(weight.shape(), params), grad_x);
}

void conv2d_max_pool2d_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index,
                                       const Conv2dOptions& params, Tensor& grad_weight, Tensor& grad_bias) {
  if (x.dtype() == DType::f32) {
    winograd_backward_weight(x, grad, index, params.padding, grad_weight, grad_bias);
  } else {
    assert(!grad_bias.defined());
    channel_tiles_backward_weight(x, grad, index, params, grad_weight);
  }
}

}  // namespace millrace::cpu
