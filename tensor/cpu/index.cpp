#include "tensor/kernels/index.h"

#include <cstring>

#include "tensor/cpu/floats.h"
#include "tensor/kernels/visit_size.h"
#include "tensor/nest.h"

namespace millrace::cpu {

namespace {

std::int64_t checked(std::int64_t index, std::int64_t size, const char* operation) {
  if (index < 0 || index >= size) {
    throw InputError("{}: index {} is outside of a dimension of size {}", operation, index, size);
  }
  return index;
}

/// `tensor.strides()` without its step along `dim`.
Strides strides_but(const Tensor& tensor, int dim) {
  Strides strides = tensor.strides();
  strides[dim] = 0;
  return strides;
}

}  // namespace

void index_select(const Tensor& x, int dim, const Tensor& index, Tensor& out) {
  Shape slice = out.shape();
  slice[dim] = 1;
  const Nest<2> nest(slice, {&out.strides(), &x.strides()});
  const std::int64_t count = nest.row();
  const auto [to_stride, from_stride] = nest.row_strides();
  const std::int64_t* const places = index.data<std::int64_t>();
  visit_size(size_of(x.dtype()), [&, to_stride = to_stride, from_stride = from_stride]<typename T>() {
    for (std::int64_t i = 0; i < index.numel(); ++i) {
      const std::int64_t place = checked(places[i * index.strides()[0]], x.shape()[dim], "index_select");
      T* const to = reinterpret_cast<T*>(out.raw()) + i * out.strides()[dim];
      const T* const from = reinterpret_cast<const T*>(x.raw()) + place * x.strides()[dim];
      nest.for_each_row([&](const auto& offsets) {
        T* const to_row = to + offsets[0];
        const T* const from_row = from + offsets[1];
        if (nest.row_is_dense()) {
          std::memcpy(to_row, from_row, static_cast<std::size_t>(count) * sizeof(T));
        } else {
          for (std::int64_t j = 0; j < count; ++j) {
            to_row[j * to_stride] = from_row[j * from_stride];
          }
        }
      });
    }
  });
}

void gather(const Tensor& x, int dim, const Tensor& index, Tensor& out) {
  const Strides x_strides = strides_but(x, dim);
  const Nest<3> nest(index.shape(), {&out.strides(), &index.strides(), &x_strides});
  const auto strides = nest.row_strides();
  visit_size(size_of(x.dtype()), [&]<typename T>() {
    nest.for_each_row([&](const auto& offsets) {
      T* const to = reinterpret_cast<T*>(out.raw()) + offsets[0];
      const std::int64_t* const places = index.data<std::int64_t>() + offsets[1];
      const T* const from = reinterpret_cast<const T*>(x.raw()) + offsets[2];
      for (std::int64_t i = 0; i < nest.row(); ++i) {
        const std::int64_t place = checked(places[i * strides[1]], x.shape()[dim], "gather");
        to[i * strides[0]] = from[i * strides[2] + place * x.strides()[dim]];
      }
    });
  });
}

void scatter_add(Tensor& into, int dim, const Tensor& index, const Tensor& source) {
  const Strides into_strides = strides_but(into, dim);
  const Nest<3> nest(index.shape(), {&source.strides(), &index.strides(), &into_strides});
  const auto strides = nest.row_strides();
  visit(into.dtype(), [&]<typename T>() {
    nest.for_each_row([&](const auto& offsets) {
      const T* const from = source.data<T>() + offsets[0];
      const std::int64_t* const places = index.data<std::int64_t>() + offsets[1];
      T* const to = into.data<T>() + offsets[2];
      for (std::int64_t i = 0; i < nest.row(); ++i) {
        const std::int64_t place = checked(places[i * strides[1]], into.shape()[dim], "scatter_add_");
        T& sum = to[i * strides[2] + place * into.strides()[dim]];
        sum = static_cast<T>(static_cast<Scalar<T>>(sum) + static_cast<Scalar<T>>(from[i * strides[0]]));
      }
    });
  });
}

}  // namespace millrace::cpu
