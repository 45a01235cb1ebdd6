# programs.cmake - what is built over the library.

# ---- The programs: only the public interface ---------------------------------------------------
file(GLOB common CONFIGURE_DEPENDS programs/common/*.c)
add_library(program_common OBJECT ${common})
add_dependencies(program_common build_commit)
target_include_directories(program_common PUBLIC programs PRIVATE ${PROJECT_BINARY_DIR}/generated)
target_compile_options(program_common PUBLIC ${QWEN3_FRAME_LIMIT})
target_link_libraries(program_common PUBLIC qwen3 PkgConfig::POPT PkgConfig::JANSSON Threads::Threads m)
foreach(program qwen3 benchmark_qwen3 test_parallel_strategies)
  file(GLOB sources CONFIGURE_DEPENDS programs/${program}/*.c)
  add_executable(program_${program} ${sources})
  set_target_properties(program_${program} PROPERTIES OUTPUT_NAME ${program})
  target_link_libraries(program_${program} PRIVATE program_common)
endforeach()
target_link_libraries(program_qwen3 PRIVATE PkgConfig::EDIT)

# `qwen3 serve`, where there is libmicrohttpd; otherwise it says that it is not there.
set(serve ${PROJECT_SOURCE_DIR}/programs/qwen3/serve)
if(QWEN3_SERVER AND MICROHTTPD_FOUND)
  file(GLOB serve_sources CONFIGURE_DEPENDS ${serve}/*.c)
  list(FILTER serve_sources EXCLUDE REGEX "absent\\.c$")
  set(page ${PROJECT_BINARY_DIR}/generated/page.c)
  add_custom_command(OUTPUT ${page} COMMAND ${CMAKE_COMMAND} -DINPUT=${serve}/page.html -DOUTPUT=${page} -DNAME=page_html
                     -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake DEPENDS ${serve}/page.html cmake/embed.cmake VERBATIM)
  target_sources(program_qwen3 PRIVATE ${serve_sources} ${page})
  target_link_libraries(program_qwen3 PRIVATE PkgConfig::MICROHTTPD)
else()
  target_sources(program_qwen3 PRIVATE ${serve}/absent.c)
endif()

# ---- Benchmarks of parts: the library's internals ----------------------------------------------
add_executable(bench_kernels bench/bench_kernels.c bench/bench_attention.c bench/bench_levels.c bench/bench_reading.c
                             $<TARGET_OBJECTS:qwen3_objects>)
target_include_directories(bench_kernels PRIVATE src)
target_link_libraries(bench_kernels PRIVATE qwen3_objects)

add_executable(bench_tokenizer bench/bench_tokenizer.c)
target_include_directories(bench_tokenizer PRIVATE src)
target_link_libraries(bench_tokenizer PRIVATE qwen3 m)

if(QWEN3_MPI)
  add_executable(bench_comm bench/bench_comm.c $<TARGET_OBJECTS:qwen3_objects>)
  target_include_directories(bench_comm PRIVATE src)
  target_link_libraries(bench_comm PRIVATE qwen3_objects)
endif()

# Products of other libraries beside ours: only where Debian's libdnnl-dev and libxsmm-dev are there, and not asked for.
find_path(DNNL_INCLUDE oneapi/dnnl/dnnl.h)
find_library(DNNL_LIBRARY dnnl)
find_path(XSMM_INCLUDE libxsmm.h)
find_library(XSMM_LIBRARY xsmm)
find_library(XSMM_NOBLAS_LIBRARY xsmmnoblas)
mark_as_advanced(DNNL_INCLUDE DNNL_LIBRARY XSMM_INCLUDE XSMM_LIBRARY XSMM_NOBLAS_LIBRARY)
if(DNNL_INCLUDE AND DNNL_LIBRARY AND XSMM_INCLUDE AND XSMM_LIBRARY AND XSMM_NOBLAS_LIBRARY)
  file(STRINGS ${DNNL_INCLUDE}/oneapi/dnnl/dnnl_version.h dnnl_2 REGEX "DNNL_VERSION_MAJOR 2$") # 3 is another interface
  if(dnnl_2)
    add_executable(bench_libraries bench/bench_libraries.c $<TARGET_OBJECTS:qwen3_objects>)
    target_include_directories(bench_libraries PRIVATE src)
    target_include_directories(bench_libraries SYSTEM PRIVATE ${DNNL_INCLUDE} ${XSMM_INCLUDE})
    target_link_libraries(bench_libraries PRIVATE qwen3_objects ${DNNL_LIBRARY} ${XSMM_LIBRARY} ${XSMM_NOBLAS_LIBRARY}
                          pthread rt ${CMAKE_DL_LIBS} m)
  endif()
endif()
