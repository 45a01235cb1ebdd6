# find_package(qwen3 [VERSION] [COMPONENTS MPI]) defines
#   qwen3::qwen3    the shared library, for qwen3.h
#   qwen3::static   the same, static
#   qwen3::mpi      with component MPI: qwen3::qwen3 and MPI, for qwen3_mpi.h
# Component MPI is found where the library was built with MPI, and MPI is found.
include(${CMAKE_CURRENT_LIST_DIR}/qwen3-targets.cmake)

set(qwen3_MPI_FOUND FALSE)
if("MPI" IN_LIST qwen3_FIND_COMPONENTS AND EXISTS ${CMAKE_CURRENT_LIST_DIR}/qwen3-mpi-targets.cmake)
  find_package(MPI QUIET COMPONENTS C)
  if(MPI_C_FOUND)
    include(${CMAKE_CURRENT_LIST_DIR}/qwen3-mpi-targets.cmake)
    set(qwen3_MPI_FOUND TRUE)
  endif()
endif()
foreach(component IN LISTS qwen3_FIND_COMPONENTS)
  if(qwen3_FIND_REQUIRED_${component} AND NOT qwen3_${component}_FOUND)
    set(qwen3_FOUND FALSE)
    set(qwen3_NOT_FOUND_MESSAGE "${CMAKE_CURRENT_LIST_DIR}: component ${component} is not there: the library was built "
      "without it, or it was not found.")
    string(CONCAT qwen3_NOT_FOUND_MESSAGE ${qwen3_NOT_FOUND_MESSAGE})
  endif()
endforeach()
