# LibTorch, the CUDA runtime, NVRTC and NCCL out of the installed `torch` wheel and the nvidia-* wheels beside it.
#
# The wheel's own TorchConfig.cmake insists on a whole CUDA toolkit, so it is not used. The wheel's include folder
# holds google/protobuf, fmt and pybind11 of other versions than the system's: the overlay below is a folder of links
# to everything but those.
#
# Targets: LibTorch::torch (with CUDA and NCCL).

find_package(PythonSite REQUIRED)
set(_torch ${PythonSite_DIR}/torch)
set(_nvidia ${PythonSite_DIR}/nvidia)

find_library(LibTorch_LIBRARY torch PATHS ${_torch}/lib NO_DEFAULT_PATH)
find_file(LibTorch_NCCL_LIBRARY libnccl.so.2 PATHS ${_nvidia}/nccl/lib NO_DEFAULT_PATH)
find_file(LibTorch_CUDART_LIBRARY libcudart.so.13 PATHS ${_nvidia}/cu13/lib NO_DEFAULT_PATH)
find_file(LibTorch_NVRTC_LIBRARY libnvrtc.so.13 PATHS ${_nvidia}/cu13/lib NO_DEFAULT_PATH)
find_path(LibTorch_CUDA_INCLUDE_DIR cuda_runtime.h PATHS ${_nvidia}/cu13/include NO_DEFAULT_PATH)
find_path(LibTorch_GLOO_INCLUDE_DIR gloo/context.h)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LibTorch_LIBRARY LibTorch_NCCL_LIBRARY
  LibTorch_CUDART_LIBRARY LibTorch_NVRTC_LIBRARY LibTorch_CUDA_INCLUDE_DIR LibTorch_GLOO_INCLUDE_DIR)

set(_overlay ${PROJECT_BINARY_DIR}/torch-include)
file(MAKE_DIRECTORY ${_overlay})
file(GLOB _entries RELATIVE ${_torch}/include ${_torch}/include/*)
list(REMOVE_ITEM _entries google fmt pybind11)
foreach(_entry ${_entries})
  file(CREATE_LINK ${_torch}/include/${_entry} ${_overlay}/${_entry} SYMBOLIC)
endforeach()

if(NOT TARGET LibTorch::torch)
  add_library(LibTorch::torch INTERFACE IMPORTED)
  target_include_directories(LibTorch::torch SYSTEM INTERFACE
    ${_overlay} ${_overlay}/torch/csrc/api/include ${LibTorch_CUDA_INCLUDE_DIR} ${_nvidia}/nccl/include)
  target_compile_definitions(LibTorch::torch INTERFACE USE_C10D_GLOO USE_C10D_NCCL)
  target_link_directories(LibTorch::torch INTERFACE ${_torch}/lib)
  # The CUDA half registers its kernels when it is loaded, so the linker must not drop it as unused. stdc++ comes first
  # because libtorch.so exports a std::filesystem of its own, whose remove_all calls a null pointer.
  target_link_libraries(LibTorch::torch INTERFACE
    -Wl,--no-as-needed stdc++ torch torch_cpu torch_cuda c10 c10_cuda -Wl,--as-needed
    ${LibTorch_NCCL_LIBRARY} ${LibTorch_CUDART_LIBRARY} ${LibTorch_NVRTC_LIBRARY})
  # Old dtags: these folders come before LD_LIBRARY_PATH, which may have another NCCL or CUDA.
  target_link_options(LibTorch::torch INTERFACE -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags
    -Wl,-rpath,${_torch}/lib -Wl,-rpath,${_nvidia}/nccl/lib -Wl,-rpath,${_nvidia}/cu13/lib)
endif()
