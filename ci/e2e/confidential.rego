# Containers come and go and say what they have to say; nobody runs a second process in one, and the policy stays.
package agent_policy

default CheckRequest := true
default GuestDetailsRequest := true
default CreateSandboxRequest := true
default DestroySandboxRequest := true
default CreateContainerRequest := true
default StartContainerRequest := true
default WaitProcessRequest := true
default ReadStreamRequest := true
default WriteStreamRequest := true
default CloseStdinRequest := true
default SignalProcessRequest := true
default RemoveContainerRequest := true
default OutputRequest := true
default InputRequest := true
default ExecProcessRequest := false
default SetPolicyRequest := false
