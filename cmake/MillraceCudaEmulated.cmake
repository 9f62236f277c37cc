# The CUDA side for tests without a GPU: .cu files are read as C++, CUDA's runtime is tests/cuda_emulator, and cuBLASLt and
# cuDNN are tests/cuda_libraries.
find_package(GTest REQUIRED)
set(MILLRACE_CUDA ON)
set(MILLRACE_CUDA_LIBRARIES millrace_cuda_libraries millrace_cuda_emulator)
set(emulator_folder ${PROJECT_SOURCE_DIR}/tests/cuda_emulator)
find_path(MILLRACE_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda
  PATH_SUFFIXES include DOC "The CUDA toolkit's headers")
find_path(MILLRACE_CUDNN_INCLUDE_DIR cudnn.h HINTS ${MILLRACE_CUDA_INCLUDE_DIR} DOC "cuDNN's headers")
if(NOT MILLRACE_CUDA_INCLUDE_DIR OR NOT MILLRACE_CUDNN_INCLUDE_DIR OR NOT MILLRACE_TESTS)
  message(FATAL_ERROR "MILLRACE_CUDA_EMULATED: needs MILLRACE_TESTS=ON and the headers of the CUDA toolkit and cuDNN, and \
found no cuda_runtime_api.h or cudnn.h: set MILLRACE_CUDA_INCLUDE_DIR and MILLRACE_CUDNN_INCLUDE_DIR to their folders, or \
configure without MILLRACE_CUDA_EMULATED")
endif()

# Each load and store of a kernel asks tests/cuda_emulator/access.cpp; a sanitizer of the whole build asks by itself.
set(MILLRACE_EMULATED_CHECKS)
if(NOT MILLRACE_SANITIZE)
  set(MILLRACE_EMULATED_CHECKS -fsanitize=kernel-address,alignment -fno-sanitize-recover=alignment)
endif()

# Has a C++ compiler read the CUDA sources among a folder's.
function(millrace_emulate_cuda sources)
  set(kernels ${${sources}})
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX
    COMPILE_OPTIONS "-include;${emulator_folder}/device.h;-Wno-unknown-pragmas;-Wno-maybe-uninitialized;${MILLRACE_EMULATED_CHECKS}")
endfunction()
