# The CUDA language and libraries of MILLRACE_CUDA=ON. NCCL is loaded at run time and not looked for here.
find_program(MILLRACE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin
  DOC "CUDA's compiler")
if(NOT CMAKE_CUDA_COMPILER AND NOT MILLRACE_NVCC)
  message(FATAL_ERROR "MILLRACE_CUDA: no nvcc found in PATH, CUDA_PATH or /usr/local/cuda: install the CUDA toolkit (13.0; \
in NVIDIA's repository for Debian: cuda-toolkit-13-0), set CMAKE_CUDA_COMPILER, or configure without MILLRACE_CUDA")
endif()
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER "${MILLRACE_NVCC}")
endif()
if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${PROJECT_SOURCE_DIR}/cmake/ccache")
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90 CACHE STRING "GPUs to compile for: 90 is Hopper's code, and PTX for later ones")
endif()
enable_language(CUDA)
string(APPEND CMAKE_CUDA_FLAGS " -std=c++20")  # CMake 3.25 does not know nvcc's standard 20

find_package(CUDAToolkit 12.8)
find_package(CUDNN 9.8)  # the first that plans for a described device
if(NOT TARGET CUDA::cudart_static OR NOT TARGET CUDA::cublasLt)
  message(FATAL_ERROR "MILLRACE_CUDA: cudart or cuBLASLt was not found beside ${CMAKE_CUDA_COMPILER}: install the whole \
CUDA toolkit (13.0; in NVIDIA's repository for Debian: cuda-toolkit-13-0)")
endif()
if(NOT CUDNN_FOUND)
  message(FATAL_ERROR "MILLRACE_CUDA: cuDNN 9.8 or later was not found: install it (in NVIDIA's repository for Debian: \
cudnn9-cuda-13), or set CUDNN_ROOT to its folder")
endif()
set(MILLRACE_CUDA_LIBRARIES CUDA::cudart_static CUDA::cublasLt CUDNN::cudnn)
