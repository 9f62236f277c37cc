#pragma once

#include <filesystem>

#include "tensor/tensor.h"

namespace millrace {

/// Writes NumPy's .npy format, version 1.0, in row-major order (bf16 has no NumPy type: an error).
/// The file is written beside and renamed, so a failure leaves the old one. @throws MachineError.
void save_npy(const std::filesystem::path& path, const Tensor& tensor);

/// Reads a .npy file of a type we have, in C or Fortran order. @throws InputError naming the file.
Tensor load_npy(const std::filesystem::path& path);

}  // namespace millrace
