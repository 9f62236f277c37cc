#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/storage.h"

namespace millrace {

/// How the elements of an image tensor N, C, H, W lie in memory. Shapes are always N, C, H, W.
enum class MemoryFormat : std::uint8_t { row_major, channels_last };

struct TensorOptions {
  DType dtype = DType::f32;
  Device device = kCpu;
  MemoryFormat format = MemoryFormat::row_major;
};

/// A typed, strided view of a block of memory. Copying a Tensor copies the view, not the elements.
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::shared_ptr<Storage> storage, std::int64_t offset, Shape shape, Strides strides, DType dtype);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Strides& strides() const { return strides_; }
  std::int64_t size(int dim) const { return shape_[wrap_dim(dim, shape_.size(), "size")]; }
  int dim() const { return shape_.size(); }
  std::int64_t numel() const { return numel_; }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : kCpu; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  std::int64_t offset() const { return offset_; }

  /// The first element. @throws InputError when T is not the tensor's type.
  template <typename T>
  T* data() const {
    if (dtype_of<T> != dtype_) {
      throw_wrong_type(dtype_of<T>);
    }
    return reinterpret_cast<T*>(raw());
  }
  std::byte* raw() const {
    return storage_ ? storage_->data() + offset_ * static_cast<std::int64_t>(size_of(dtype_)) : nullptr;
  }
  /// The value of a tensor of one element.
  double item() const;
  /// One element, bounds checked: `x.at({0, 2})`.
  double at(std::initializer_list<std::int64_t> index) const;
  void set(std::initializer_list<std::int64_t> index, double value);

  std::size_t bytes() const {
    return static_cast<std::size_t>(numel_) * size_of(dtype_);
  }  ///< Of its elements.
  bool is_contiguous(MemoryFormat format = MemoryFormat::row_major) const;
  /// Whether the elements fill their memory without gaps or overlap, in any order of dimensions.
  bool is_dense() const;

  // Views: no element moves.
  Tensor view(
      Shape shape) const;  ///< One size may be -1. @throws InputError when the strides do not allow it.
  Tensor permute(std::initializer_list<int> dims) const;
  Tensor permute(std::span<const int> dims) const;
  Tensor transpose(int a, int b) const;
  Tensor t() const;  ///< Two dimensions swapped.
  Tensor slice(int dim, std::int64_t start, std::int64_t end, std::int64_t step = 1) const;
  Tensor narrow(int dim, std::int64_t start, std::int64_t length) const;
  Tensor select(int dim, std::int64_t index) const;
  Tensor operator[](std::int64_t index) const { return select(0, index); }
  Tensor unsqueeze(int dim) const;
  Tensor squeeze() const;
  Tensor squeeze(int dim) const;
  Tensor expand(const Shape& shape) const;  ///< Sizes of 1 grow; -1 keeps a size.
  /// The same elements under a version count of its own (parameters are views of one flat buffer).
  Tensor with_own_version() const;

  // Copies, or views where the memory allows it.
  Tensor reshape(Shape shape) const;
  /// Dense in the given order; itself when it already is.
  Tensor contiguous(MemoryFormat format = MemoryFormat::row_major) const;
  Tensor clone() const;  ///< Keeps a dense memory order.
  Tensor to(DType dtype) const;
  Tensor to(Device device) const;  ///< To and from pinned memory: enqueued on the GPU's current stream.

  // In place; each returns *this and counts as one change.
  Tensor& fill_(double value);
  Tensor& zero_() { return fill_(0); }
  Tensor& copy_(const Tensor& source);                  ///< Broadcasts and converts.
  Tensor& add_(const Tensor& other, double alpha = 1);  ///< this += alpha * other
  Tensor& add_(double value);
  Tensor& sub_(const Tensor& other, double alpha = 1);
  Tensor& sub_(double value);
  Tensor& mul_(const Tensor& other);
  Tensor& mul_(double value);
  Tensor& div_(const Tensor& other);
  Tensor& div_(double value);
  Tensor& pow_(double exponent);
  Tensor& exp_();
  Tensor& log_();
  Tensor& sqrt_();
  Tensor& tanh_();
  Tensor& neg_();
  Tensor& abs_();
  Tensor& clamp_(double low, double high);
  Tensor& t_();  ///< Transposes this view.

  /// Rows of numbers, then the type and the size, as PyTorch's first tutorial shows them.
  std::string to_string() const;

 private:
  [[noreturn]] void throw_wrong_type(DType asked) const;

  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;
  std::int64_t numel_ = 0;
  Shape shape_;
  Strides strides_;
  DType dtype_ = DType::f32;
};

std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

/// Strides of a dense tensor of this shape.
Strides dense_strides(const Shape& shape, MemoryFormat format = MemoryFormat::row_major);

// Creation.
Tensor empty(const Shape& shape, TensorOptions options = {});
Tensor empty_like(const Tensor& tensor);  ///< Same shape, type, device and, when dense, the same strides.
Tensor zeros(const Shape& shape, TensorOptions options = {});
Tensor ones(const Shape& shape, TensorOptions options = {});
Tensor full(const Shape& shape, double value, TensorOptions options = {});
Tensor arange(double start, double end, double step = 1, TensorOptions options = {});  ///< [start, end)
/// A tensor of the given numbers: `tensor({1, 2, 3})`, `tensor({{1, 2}, {3, 4}})`. `Number` is always double:
/// a template gives way to the rows below it where braces fit both, as those of a column `{{1}, {2}}` do.
template <typename Number = double>
Tensor tensor(std::initializer_list<std::type_identity_t<Number>> values, TensorOptions options = {});
Tensor tensor(std::initializer_list<std::initializer_list<double>> rows, TensorOptions options = {});
/// Shares the caller's memory; `release` is called when the last view is gone.
Tensor from_blob(void* data, const Shape& shape, TensorOptions options = {},
                 std::function<void()> release = {});
Tensor from_blob(void* data, const Shape& shape, const Strides& strides, TensorOptions options,
                 std::function<void()> release = {});

}  // namespace millrace
