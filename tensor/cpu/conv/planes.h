#pragma once

#include "tensor/cpu/conv/sizes.h"

namespace millrace::cpu::direct {

/// A forward pass by rows of pixels: for steps of one pixel, and rows that fill most of their vectors.
bool planes_are_faster(const Sizes& s);
/// `packed` holds kMostChannels numbers for each tap, one for each output channel; so does `bias`.
void planes_forward(const float* x, const float* packed, const float* bias, const Sizes& s, float* out);

}  // namespace millrace::cpu::direct
