# The CUDA side for tests without a GPU: .cu files are read as C++, and CUDA's runtime is tests/cuda_emulator.
set(MILLRACE_CUDA ON)
set(MILLRACE_CUDA_LIBRARIES millrace_cuda_emulator)
set(emulator_folder ${PROJECT_SOURCE_DIR}/tests/cuda_emulator)
find_path(MILLRACE_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda
  PATH_SUFFIXES include DOC "The CUDA toolkit's headers")
if(NOT MILLRACE_CUDA_INCLUDE_DIR OR NOT MILLRACE_TESTS)
  message(FATAL_ERROR "MILLRACE_CUDA_EMULATED: needs MILLRACE_TESTS=ON and the CUDA toolkit's headers, and found no \
cuda_runtime_api.h: set MILLRACE_CUDA_INCLUDE_DIR to its folder, or configure without MILLRACE_CUDA_EMULATED")
endif()

# Makes the CUDA sources of a folder fit for the emulator; it has operations of its own in place of cuDNN and cuBLASLt.
function(millrace_emulate_cuda sources)
  list(FILTER ${sources} EXCLUDE REGEX "tensor/cuda/(conv2d|conv2d_plan|cudnn|libraries|matmul)\\.cpp$")
  set(kernels ${${sources}})
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX
    COMPILE_OPTIONS "-include;${emulator_folder}/device.h;-Wno-unknown-pragmas;-Wno-maybe-uninitialized")
  set(${sources} ${${sources}} PARENT_SCOPE)
endfunction()
